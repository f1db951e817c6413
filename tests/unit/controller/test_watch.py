from whatsapp_operator.controller.watch import WatchTrace

SESSIONS = "/apis/whatsapp-operator.io/v1alpha1/whatsappsessions"
PODS = "/api/v1/pods"
VOLUMES = "/api/v1/persistentvolumeclaims"


class Trace:
    def __init__(self, namespaces: tuple[str, ...] = ()) -> None:
        self.relists = 0
        self.restarts: list[str] = []
        self.trace = WatchTrace(namespaces, on_relist=self.relisted, on_restart=self.restarts.append)

    def relisted(self) -> None:
        self.relists += 1

    def open_all(self) -> None:
        for path in (SESSIONS, PODS, VOLUMES):
            self.trace.seen(path, watch=False)
            self.trace.seen(path, watch=True)


def test_complete_once_every_watch_is_open() -> None:
    found = Trace()
    for path in (SESSIONS, PODS):
        found.trace.seen(path, watch=False)
        found.trace.seen(path, watch=True)
        assert not found.trace.complete.is_set()
    found.trace.seen(VOLUMES, watch=False)
    assert not found.trace.complete.is_set()
    found.trace.seen(VOLUMES, watch=True)
    assert found.trace.complete.is_set()
    assert (found.relists, found.restarts) == (0, [])


def test_a_watch_that_goes_on_misses_nothing() -> None:
    found = Trace()
    found.open_all()
    found.trace.seen(PODS, watch=True)
    assert (found.relists, found.restarts) == (0, ["pods"])


def test_a_watch_that_begins_with_a_new_list_may_have_missed_deletions() -> None:
    found = Trace()
    found.open_all()
    found.trace.seen(PODS, watch=False)
    assert found.relists == 0
    found.trace.seen(PODS, watch=True)
    assert found.relists == 1


def test_each_namespace_is_watched() -> None:
    found = Trace(("a", "b"))
    for namespace in ("a", "b"):
        assert not found.trace.complete.is_set()
        for path in (
            f"/apis/whatsapp-operator.io/v1alpha1/namespaces/{namespace}/whatsappsessions",
            f"/api/v1/namespaces/{namespace}/pods",
            f"/api/v1/namespaces/{namespace}/persistentvolumeclaims",
        ):
            found.trace.seen(path, watch=True)
    assert found.trace.complete.is_set()
