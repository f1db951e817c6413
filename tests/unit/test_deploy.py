import pytest

from tests.cluster.errors import ClusterError
from tests.deploy import chart_values, image_references, printed


def test_the_local_cluster_runs_the_images_of_this_checkout() -> None:
    found = image_references({})
    assert found.keys() == {"session", "operator", "simulator", "session-simulator"}
    assert all(reference.startswith("localhost/") for reference in found.values())


def test_another_cluster_pulls_from_the_registry_that_is_named() -> None:
    found = image_references({"CONTEXT": "prod", "REGISTRY": "registry.example/wa", "TAG": "1.0"})
    assert found["operator"] == "registry.example/wa/operator:1.0"


@pytest.mark.parametrize("env", [{}, {"REGISTRY": "registry.example/wa"}, {"TAG": "1.0"}])
def test_another_cluster_without_a_registry_is_refused_with_the_remedy(env: dict[str, str]) -> None:
    with pytest.raises(ClusterError, match=r"REGISTRY .* and TAG"):
        image_references({"CONTEXT": "prod", **env})


def test_the_values_name_the_images_and_nothing_else() -> None:
    made = chart_values({"operator": "registry.example:5000/wa/operator:1.0", "session-simulator": "wa/session:1.0"})
    assert made == {
        "operator": {"image": {"repository": "registry.example:5000/wa/operator", "tag": "1.0"}},
        "session": {"image": {"repository": "wa/session", "tag": "1.0"}},
    }


def test_a_tag_that_looks_like_a_number_is_printed_as_a_string() -> None:
    assert printed({"tag": "17663571e210"}) == '"tag": "17663571e210"\n'
