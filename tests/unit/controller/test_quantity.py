import pytest

from whatsapp_operator.controller import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [("256Mi", 256 * 1024**2), ("1Gi", 1024**3), ("1G", 10**9), ("1.5k", 1500), ("100m", 0.1), ("2e3", 2000), ("7", 7)],
)
def test_values(text: str, value: float) -> None:
    assert float(quantity.parse(text)) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "Mi", "1MiB", "one", "1 Mi"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.parse(text)
