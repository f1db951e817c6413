"""Durations, and text of others' making."""

from datetime import timedelta

import pytest

from whatsapp_operator.cli.app import seconds_of
from whatsapp_operator.cli.exits import CliError
from whatsapp_operator.cli.words import age, countdown, plain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (192, "3m12s"), (3599, "59m"), (18_180, "5h3m"),
     (28_800, "8h"), (108_000, "30h"), (353_000, "4d2h"), (60 * 86_400, "60d")],
)  # fmt: skip
def test_ages_are_those_of_kubectl(seconds: int, text: str) -> None:
    assert age(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(("seconds", "text"), [(-5, "0:00"), (0, "0:00"), (0.2, "0:01"), (59.9, "1:00"), (151, "2:31")])
def test_a_countdown_ends_at_its_end(seconds: float, text: str) -> None:
    assert countdown(timedelta(seconds=seconds)) == text


def test_a_terminal_obeys_nothing_that_others_have_written() -> None:
    assert plain("Ann\x1b[2J\x9b31m\x07\u202e x\ty\n") == "Ann[2J31m x y "


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "-1s", "1d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(CliError, match="duration"):
        seconds_of(text)
