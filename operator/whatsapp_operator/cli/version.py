"""The version of the plugin."""

from importlib import metadata


def version() -> str:
    """That of the package; a checkout which was not installed has none."""
    try:
        return metadata.version("whatsapp-operator")
    except metadata.PackageNotFoundError:
        return "unknown"
