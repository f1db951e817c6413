"""A Kubernetes operator for WhatsApp sessions."""

# That of pyproject.toml, written here by `make release`: the images hold no metadata of the package.
__version__ = "0.1.0"
