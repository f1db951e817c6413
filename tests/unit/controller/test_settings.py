from pathlib import Path

import pytest

from whatsapp_operator.controller.settings import ClaimScope, MaxUnavailable, parse


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(b"k" * 32)
    return path


def needed(key: Path) -> list[str]:
    return ["--session-image", "example/session:1", "--namespace", "system", "--claim-key-file", str(key)]


def test_defaults(key: Path) -> None:
    found = parse(needed(key), version="1")
    assert (found.namespace, found.watch_namespaces, found.http_port, found.workers) == ("system", (), 8081, 16)
    assert found.options.claim_scope is ClaimScope.TENANT
    assert not found.options.allow.images
    assert found.lease.retry < found.lease.deadline < found.lease.duration < 15
    assert "kkkk" not in repr(found)


def test_everything_else(key: Path) -> None:
    arguments = [
        *("--claim-scope", "Cluster", "--watch-namespaces", "a, b", "--http-port", "0", "--workers", "2"),
        *("--allow-images", "x,y", "--allow-priority-classes", "low", "--allow-toleration-keys", "gpu"),
        *("--object-metrics", "false", "--log-format", "console"),
        *("--max-unavailable", "10%", "--rollout-delay-seconds", "0"),
    ]
    found = parse([*needed(key), *arguments], version="1")
    assert found.watch_namespaces == ("a", "b")
    assert found.options.claim_scope is ClaimScope.CLUSTER
    assert found.options.allow.images == {"x", "y"}
    assert found.options.allow.priority_classes == {"low"}
    assert found.options.allow.toleration_keys == {"gpu"}
    assert not found.object_metrics
    assert found.max_unavailable == MaxUnavailable(10, percent=True)
    assert found.rollout_delay == 0


def test_the_environment_gives_what_the_command_line_does_not(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATSAPP_OPERATOR_WORKERS", "3")
    monkeypatch.setenv("WHATSAPP_OPERATOR_WATCH_NAMESPACES", "team")
    found = parse(needed(key), version="1")
    assert (found.workers, found.watch_namespaces) == (3, ("team",))
    assert parse([*needed(key), "--workers", "5"], version="1").workers == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ["--session-image", ""],
        ["--max-unavailable", "-1"],
        ["--max-unavailable", "half"],
        ["--rollout-delay-seconds", "-1"],
        ["--rollout-delay-seconds", "nan"],
        ["--namespace", ""],
        ["--workers", "0"],
        ["--workers", "many"],
        ["--claim-scope", "World"],
        ["--claim-key-file", "/does/not/exist"],
        ["--lease-seconds", "0"],
    ],
)
def test_what_is_refused(key: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse([*needed(key), *arguments], version="1")


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"k")
    with pytest.raises(SystemExit, match="at least 16"):
        parse(needed(path), version="1")
