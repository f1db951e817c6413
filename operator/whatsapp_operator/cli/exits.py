"""What the plugin ends with, as its documentation lists it."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    PERSON_MUST_ACT = 5
    TIMED_OUT = 6
    INTERRUPTED = 130
    TERMINATED = 143


class CliError(Exception):
    """Ends the command: what went wrong, what to do about it (a line each), and the exit code."""

    def __init__(self, message: str, *remedies: str, code: Exit = Exit.ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.remedies = remedies
        self.code = code
