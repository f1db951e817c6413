import pytest

from whatsapp_simulator.binary.tokens import Dictionary, read_dictionary


@pytest.fixture(scope="session")
def dictionary() -> Dictionary:
    """The dictionary of the client library that is installed."""
    return read_dictionary()
