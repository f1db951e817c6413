"""Everything that the operator may do to the cluster for one session, besides writing its status."""

from dataclasses import dataclass
from typing import TypeAlias

from whatsapp_operator.controller.views import ClaimView
from whatsapp_operator.kube.client import Object


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Keep the object until what it owns is cleaned up."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go."""


@dataclass(frozen=True, slots=True)
class CheckNamespace:
    """Look whether the namespace is being deleted."""


@dataclass(frozen=True, slots=True)
class EnsureNamespace:
    """Create ServiceAccount and RoleBinding of the session pods where they are missing."""


@dataclass(frozen=True, slots=True)
class AcquireClaim:
    """Create the Lease; whoever is first has the phone."""

    name: str


@dataclass(frozen=True, slots=True)
class CheckHolder:
    """Look whether the holder of the claim still exists."""

    claim: ClaimView


@dataclass(frozen=True, slots=True)
class TakeOverClaim:
    """Become the holder, unless the Lease has changed since."""

    claim: ClaimView


@dataclass(frozen=True, slots=True)
class ReleaseClaim:
    """Delete the Lease, unless it has changed since."""

    claim: ClaimView


@dataclass(frozen=True, slots=True)
class CreateSecret:
    """Create the Secret.

    Attributes:
        may_exist: a Secret of that name is taken for the session's own, made before a crash; else it is somebody's.
    """

    body: Object
    may_exist: bool


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class CreateVolume:
    body: Object


@dataclass(frozen=True, slots=True)
class PatchVolume:
    """Merge a patch, unless the claim has changed since."""

    name: str
    version: str
    patch: Object


@dataclass(frozen=True, slots=True)
class ResizeVolume:
    """Ask for another size, unless the claim has changed since."""

    name: str
    version: str
    size: str


@dataclass(frozen=True, slots=True)
class DeleteVolume:
    """With a version: unless the claim has changed since."""

    name: str
    uid: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class CreatePod:
    body: Object


@dataclass(frozen=True, slots=True)
class PatchPod:
    """Set labels and annotations; None removes one."""

    name: str
    uid: str
    version: str
    labels: tuple[tuple[str, str | None], ...] = ()
    annotations: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete gracefully, never by force."""

    name: str
    uid: str


Action: TypeAlias = (
    AddFinalizer
    | RemoveFinalizer
    | CheckNamespace
    | EnsureNamespace
    | AcquireClaim
    | CheckHolder
    | TakeOverClaim
    | ReleaseClaim
    | CreateSecret
    | DeleteSecret
    | CreateVolume
    | PatchVolume
    | ResizeVolume
    | DeleteVolume
    | CreatePod
    | PatchPod
    | DeletePod
)
