"""A refusal names the right that is missing, and commands that give just that."""

import re
import shlex

import pytest

from whatsapp_operator.cli.exits import Exit
from whatsapp_operator.cli.refusals import Right, explain, missing_right
from whatsapp_operator.kube.errors import (
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    ServerError,
    UnauthorizedError,
    UnreachableError,
)

USER = "ann o'hara"
GET_SECRET = (
    'secrets "wa-support" is forbidden: User "ann@example.com" cannot get resource "secrets" in API group "" in the'
    ' namespace "shop"'
)


@pytest.mark.parametrize(
    ("message", "right", "user"),
    [
        (GET_SECRET, Right("get", "secrets", "", "shop", "wa-support"), "ann@example.com"),
        (
            'whatsappsessions.whatsapp-operator.io is forbidden: User "a" cannot list resource "whatsappsessions" in'
            ' API group "whatsapp-operator.io" at the cluster scope',
            Right("list", "whatsappsessions", "whatsapp-operator.io"),
            "a",
        ),
        (
            'pods "wa-x" is forbidden: User "a" cannot get resource "pods/log" in API group "" in the namespace "n":'
            " RBAC: something",
            Right("get", "pods/log", "", "n", "wa-x"),
            "a",
        ),
    ],
)
def test_the_right_is_read_from_the_refusal(message: str, right: Right, user: str) -> None:
    assert missing_right(ForbiddenError(message, code=403)) == (right, user)


@pytest.mark.parametrize(
    ("right", "user", "kind", "rules", "subject"),
    [
        (
            Right("get", "secrets", "", "shop", "wa-support"),
            USER,
            "role",
            "--verb=get --resource=secrets --resource-name=wa-support -n shop",
            f"--user={shlex.quote(USER)} -n shop",
        ),
        (
            Right("get", "pods/log", "", "shop", "a b"),
            "system:serviceaccount:ci:bot",
            "role",
            "--verb=get --resource=pods/log --resource-name='a b' -n shop",
            "--serviceaccount=ci:bot -n shop",
        ),
        (
            Right("list", "whatsappsessions", "whatsapp-operator.io"),
            "ann",
            "clusterrole",
            "--verb=list --resource=whatsappsessions.whatsapp-operator.io",
            "--user=ann",
        ),
    ],
)
def test_the_remedy_gives_that_right_and_no_other(right: Right, user: str, kind: str, rules: str, subject: str) -> None:
    role, binding = right.grant(user)
    name = role.split()[3]
    assert re.fullmatch(rf"kubectl-wa-{right.verb}-{right.resource.replace('/', '-')}-[0-9a-f]{{8}}", name)
    assert role == f"kubectl create {kind} {name} {rules}"
    assert binding == f"kubectl create {kind}binding {name} --{kind}={name} {subject}"


def test_the_rights_of_two_people_and_of_two_sessions_are_apart() -> None:
    one, other = (Right("get", "secrets", "", "shop", f"wa-{name}") for name in ("support", "sales"))
    grants = (one.grant("ann"), one.grant("bob"), other.grant("ann"))
    assert len({role.split()[3] for role, _ in grants}) == 3


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ForbiddenError(GET_SECRET, code=403), Exit.NOT_ALLOWED, "get on secrets wa-support in namespace shop"),
        (ForbiddenError("denied by policy", code=403), Exit.NOT_ALLOWED, "denied by policy"),
        (UnauthorizedError("Unauthorized", code=401), Exit.NOT_ALLOWED, "does not know you"),
        (NotFoundError('x "y" not found', code=404), Exit.NOT_FOUND, "not found"),
        (
            NotFoundError("the server could not find the requested resource", code=404),
            Exit.NOT_FOUND,
            "definition is not installed",
        ),
        (InvalidError("spec.phone: Invalid value", code=422), Exit.USAGE, "spec.phone"),
        (UnreachableError("GET /: refused"), Exit.ERROR, "cannot be reached"),
        (ServerError("etcd", code=500), Exit.ERROR, "etcd"),
    ],
)
def test_each_failure_has_its_exit_code(error: KubeError, code: Exit, text: str) -> None:
    found = explain(error)
    assert found.code is code
    assert text in found.message
