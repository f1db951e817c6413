"""What a failed request means to the person who asked, with the command that helps."""

import hashlib
import re
import shlex
from dataclasses import dataclass
from typing import Final

from whatsapp_operator.cli.exits import CliError, Exit
from whatsapp_operator.kube.errors import (
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    ServerError,
    ThrottledError,
    UnauthorizedError,
    UnreachableError,
)

# What a command that goes on waits out.
PASSING: Final = (UnreachableError, ThrottledError, ServerError)

# As the API server's authorizer words it.
_DENIED: Final = re.compile(
    r'(?:"(?P<name>[^"]*)" )?is forbidden: User "(?P<user>[^"]*)" cannot (?P<verb>\w+)'
    r' resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)"| at the cluster scope)'
)


@dataclass(frozen=True, slots=True)
class Right:
    """What RBAC can give. An empty namespace is the whole cluster, an empty name every object."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        """The resource as `kubectl create role` takes it: the group before the subresource."""
        plural, _, subresource = self.resource.partition("/")
        plural = f"{plural}.{self.group}" if self.group else plural
        return f"{plural}/{subresource}" if subresource else plural

    def __str__(self) -> str:
        about = f" {self.name}" if self.name else ""
        where = f"in namespace {self.namespace}" if self.namespace else "in the whole cluster"
        return f"{self.verb} on {self.kind}{about} {where}"

    def grant(self, user: str) -> tuple[str, str]:
        """Two commands with which an administrator gives the right to the user.

        Each right of each user has a name of its own: what gives one never stands in the way of another, or widens it.
        """
        own = hashlib.sha256(f"{self}\0{user}".encode()).hexdigest()[:8]
        name = f"kubectl-wa-{self.verb}-{self.resource.replace('/', '-')}-{own}"
        role = "role" if self.namespace else "clusterrole"
        scope = f" -n {self.namespace}" if self.namespace else ""
        only = f" --resource-name={shlex.quote(self.name)}" if self.name else ""
        return (
            f"kubectl create {role} {name} --verb={self.verb} --resource={self.kind}{only}{scope}",
            f"kubectl create {role}binding {name} --{role}={name} {_subject(user)}{scope}",
        )


def _subject(user: str) -> str:
    account = re.fullmatch(r"system:serviceaccount:([^:]+):([^:]+)", user)
    return f"--serviceaccount={account[1]}:{account[2]}" if account else f"--user={shlex.quote(user)}"


def missing_right(error: ForbiddenError) -> tuple[Right, str] | None:
    """The right that was missing and the user who lacks it; None where something else than RBAC refuses."""
    found = _DENIED.search(error.message)
    if found is None:
        return None
    name = found["name"] if found["verb"] not in ("create", "list", "watch") else ""
    return Right(found["verb"], found["resource"], found["group"], found["namespace"] or "", name or ""), found["user"]


def explain(error: KubeError) -> CliError:
    """The error that ends a command whose request failed."""
    match error:
        case ForbiddenError():
            if (lacking := missing_right(error)) is None:
                return CliError(f"refused: {error.message}", code=Exit.NOT_ALLOWED)
            right, user = lacking
            return CliError(
                f"{user} lacks the right to {right}",
                "Ask an administrator for it:",
                *(f"  {command}" for command in right.grant(user)),
                code=Exit.NOT_ALLOWED,
            )
        case UnauthorizedError():
            return CliError(
                "the API server does not know you: the credentials of the kubeconfig are missing, wrong or expired",
                "Log in again, or choose another --context.",
                code=Exit.NOT_ALLOWED,
            )
        case NotFoundError() if "could not find the requested resource" in error.message:
            return CliError(
                "this cluster has no WhatsAppSessions: their definition is not installed",
                "Install the operator, or choose another --context; kubectl wa doctor looks closer.",
                code=Exit.NOT_FOUND,
            )
        case NotFoundError():
            return CliError(error.message, code=Exit.NOT_FOUND)
        case InvalidError():
            return CliError(f"the API server refuses this: {error.message}", code=Exit.USAGE)
        case UnreachableError():
            return CliError(f"the API server cannot be reached: {error.message}", "Check --context and the network.")
        case _:
            return CliError(error.message)
