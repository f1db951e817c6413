import asyncio

import pytest


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept, which do not pass."""
    found: list[float] = []
    yield_to_others = asyncio.sleep

    async def sleep(seconds: float) -> None:
        found.append(seconds)
        await yield_to_others(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found
