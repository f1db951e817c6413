"""`kubectl wa`, `python -m whatsapp_operator.cli`, and kubectl's completion of it."""

import sys
from typing import NoReturn


def main() -> None:
    """The plugin. Says which extra is missing where its dependencies are not installed."""
    try:
        from whatsapp_operator.cli.app import app
    except ModuleNotFoundError as error:
        _lacking(error)
    app(prog_name="kubectl-wa")


def complete() -> None:
    """`kubectl_complete-wa`, which kubectl calls at a tabulator."""
    try:
        from whatsapp_operator.cli.app import app
        from whatsapp_operator.cli.completion import for_kubectl
    except ModuleNotFoundError as error:
        _lacking(error)
    sys.stdout.write(for_kubectl(app, sys.argv[1:]))


def _lacking(error: ModuleNotFoundError) -> NoReturn:
    if (error.name or "").startswith("whatsapp_operator"):
        raise error
    sys.stderr.write(
        # By its name alone it is not to be had: the package is on no index.
        f"error: kubectl wa needs {error.name}, which the extra [cli] brings: install the wheel with it, as in"
        " pipx install --force './whatsapp_operator-X.Y.Z-py3-none-any.whl[cli]'\n"
    )
    sys.exit(1)


if __name__ == "__main__":
    main()
