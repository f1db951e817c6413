from importlib import metadata

import pytest

from whatsapp_operator.controller import __main__ as main


@pytest.mark.parametrize(
    ("environment", "installed", "expected"),
    [("1.2.3", "9.9.9", "1.2.3"), ("", "9.9.9", "9.9.9"), (None, "9.9.9", "9.9.9"), (None, None, "unknown")],
)
def test_the_version_is_that_of_the_image_or_else_of_the_package(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, installed: str | None, expected: str
) -> None:
    def version(name: str) -> str:
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(metadata, "version", version)
    if environment is None:
        monkeypatch.delenv("WHATSAPP_OPERATOR_VERSION", raising=False)
    else:
        monkeypatch.setenv("WHATSAPP_OPERATOR_VERSION", environment)
    assert main.version() == expected
