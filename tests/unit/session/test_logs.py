import logging
from collections.abc import Iterator

import pytest

from whatsapp_operator.session import logs


@pytest.fixture(autouse=True)
def level_as_before() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def test_the_level_follows_what_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    level = logs.Level("INFO")
    asked = [None, "DEBUG", "ERROR", None, "loud", "loud", "WARNING", "loud", None]
    expected = ["INFO", "DEBUG", "ERROR", "INFO", "INFO", "INFO", "WARNING", "INFO", "INFO"]
    found = []
    for name in asked:
        level.follow(name)
        found.append(logging.getLevelName(logging.getLogger().level))
    assert found == expected
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"], "once, until it changes"
    assert "loud" not in caplog.text
