"""What a request to the API server may end with, as types that a caller can decide on."""

from typing import Any, Final


class KubeError(Exception):
    """A request failed.

    Attributes:
        code: HTTP status; 0 if there was no response.
        reason: `reason` of the Status object, such as AlreadyExists; may be empty.
        message: the API server's own sentence.
    """

    def __init__(self, message: str, *, code: int = 0, reason: str = "", causes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.causes = causes


class NotFoundError(KubeError):
    """404."""


class AlreadyExistsError(KubeError):
    """409 of a create: the name is taken."""


class ConflictError(KubeError):
    """409 of a write with a precondition: resourceVersion or uid is not the present one."""


class GoneError(KubeError):
    """410: the continuation or the version to start from is too old."""


class InvalidError(KubeError):
    """400 or 422: the object or the request cannot be accepted as it is."""


class UnauthorizedError(KubeError):
    """401."""


class ForbiddenError(KubeError):
    """403: no right, or refused by quota, Pod Security or another admission plugin."""

    @property
    def namespace_terminating(self) -> bool:
        """Nothing can be created, because the namespace is being deleted."""
        return "NamespaceTerminating" in self.causes


class ThrottledError(KubeError):
    """429, or 503 with Retry-After.

    Attributes:
        retry_after: seconds the server asks to wait.
    """

    def __init__(self, message: str, *, code: int, reason: str, retry_after: float) -> None:
        super().__init__(message, code=code, reason=reason)
        self.retry_after = retry_after


class ServerError(KubeError):
    """5xx."""


class UndeclaredFieldError(KubeError):
    """500 of a server-side apply: the definition that is installed does not have one of the fields."""


class UnreachableError(KubeError):
    """No answer: connection refused or broken, or the time-out of the call is over. The write may have been done."""


class NotLeadingError(KubeError):
    """The write was not sent, because this process does not hold the lease any more."""


_UNDECLARED: Final = "field not declared in schema"
_BY_CODE: Final[dict[int, type[KubeError]]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    410: GoneError,
    422: InvalidError,
}


def from_response(code: int, status: Any, retry_after: str | None) -> KubeError:
    """The error for a response of 400 or above.

    Args:
        code: HTTP status.
        status: the decoded body, a `v1.Status` if the API server itself has answered.
        retry_after: the Retry-After header.
    """
    body: dict[str, Any] = status if isinstance(status, dict) else {}
    message = str(body.get("message") or f"the API server answered {code}")
    reason = str(body.get("reason") or "")
    details = body.get("details") or {}
    if code == 429 or (code == 503 and retry_after):
        try:
            seconds = float(retry_after or 1)
        except ValueError:  # an HTTP date, which the API server never sends
            seconds = 1.0
        return ThrottledError(message, code=code, reason=reason, retry_after=seconds)
    if code == 409:
        kind = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
        return kind(message, code=code, reason=reason)
    causes = tuple(str(cause.get("reason", "")) for cause in details.get("causes") or ())
    if code == 500 and _UNDECLARED in message:
        return UndeclaredFieldError(message, code=code, reason=reason)
    kind_by_code = _BY_CODE.get(code, ServerError if code >= 500 else KubeError)
    return kind_by_code(message, code=code, reason=reason, causes=causes)
