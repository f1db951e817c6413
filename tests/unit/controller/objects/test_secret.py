from tests.unit.controller.builders import session
from whatsapp_operator.controller.objects import secret


def test_it_is_empty_and_owned() -> None:
    body = secret.build(session(), "1")
    assert "data" not in body
    assert "stringData" not in body
    assert body["metadata"]["name"] == "wa-shop"
    assert body["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "whatsapp-operator.io/v1alpha1",
            "kind": "WhatsAppSession",
            "name": "shop",
            "uid": session().metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
