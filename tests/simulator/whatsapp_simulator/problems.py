"""Failures that the control API tells as application/problem+json (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class ProblemError(Exception):
    """One failure: an HTTP status, a stable name for programs, and a sentence for people, free of secrets."""

    status: int
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


def unknown_phone() -> ProblemError:
    return ProblemError(404, "unknown-phone", "no phone with this number; create it with POST /phones")


def unknown_device() -> ProblemError:
    return ProblemError(404, "unknown-device", "this phone has no such linked device")


def client_gone() -> ProblemError:
    return ProblemError(410, "client-gone", "the client closed its stream or did not answer")
