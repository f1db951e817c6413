from whatsapp_operator.controller.objects import rolebinding


def test_it_binds_the_account_of_its_own_namespace_to_the_cluster_role() -> None:
    body = rolebinding.build("team", "1")
    assert body["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "whatsapp-session",
    }
    assert body["subjects"] == [{"kind": "ServiceAccount", "name": "whatsapp-session", "namespace": "team"}]
