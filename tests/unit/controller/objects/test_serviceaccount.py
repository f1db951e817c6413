from whatsapp_operator.controller.objects import serviceaccount


def test_its_token_is_mounted_only_where_asked_for() -> None:
    body = serviceaccount.build("team", "1")
    assert (body["metadata"]["name"], body["metadata"]["namespace"]) == ("whatsapp-session", "team")
    assert body["automountServiceAccountToken"] is False
