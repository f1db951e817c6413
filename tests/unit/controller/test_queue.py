import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_operator.controller.queue import BACKOFF_FIRST, BACKOFF_LAST, Dispatcher, WorkQueue


def queue() -> WorkQueue[str]:
    return WorkQueue(jitter=lambda: 1.0)


def test_a_key_waits_once_however_often_it_is_added() -> None:
    q = queue()
    for _ in range(3):
        q.add("a", 1.0)
    assert q.take(4.0) == ("a", 3.0)
    assert q.take(4.0) is None


def test_a_key_added_while_it_is_worked_on_comes_once_more_afterwards() -> None:
    q = queue()
    q.add("a", 0.0)
    q.take(0.0)
    q.add("a", 1.0)
    q.add("a", 2.0)
    assert q.take(2.0) is None
    q.done("a", 3.0)
    assert q.take(3.0) == ("a", 0.0)
    q.done("a", 4.0)
    assert q.take(4.0) is None


def test_a_delayed_key_comes_at_its_time_and_the_earlier_time_wins() -> None:
    q = queue()
    q.add_after("a", 10.0, 0.0)
    q.add_after("a", 5.0, 0.0)
    q.add_after("a", 20.0, 0.0)
    assert q.next_due() == 5.0
    assert q.take(4.9) is None
    assert q.take(5.0) == ("a", 0.0)
    q.done("a", 5.0)
    assert q.take(100.0) is None


def test_adding_a_delayed_key_brings_it_forward() -> None:
    q = queue()
    q.add_after("a", 10.0, 0.0)
    q.add("a", 1.0)
    assert q.take(1.0) == ("a", 0.0)
    q.done("a", 1.0)
    assert q.next_due() is None


def test_backoff_doubles_to_its_limit_and_starts_anew_after_success() -> None:
    q = queue()
    waits = []
    for _ in range(15):
        waits.append(q.retry("a", 0.0))
        q.drop("other")
        q.take(1e9)
        q.done("a", 1e9)
    assert waits[:3] == [BACKOFF_FIRST, BACKOFF_FIRST * 2, BACKOFF_FIRST * 4]
    assert waits[-1] == BACKOFF_LAST
    q.forget("a")
    assert q.retry("a", 0.0) == BACKOFF_FIRST


def test_the_server_may_ask_for_a_longer_wait() -> None:
    assert queue().retry("a", 0.0, at_least=7.0) == 7.0


def test_nothing_that_comes_meanwhile_shortens_the_wait_that_the_server_asks_for() -> None:
    q = queue()
    q.add("a", 0.0)
    assert q.take(0.0) == ("a", 0.0)
    q.add("a", 0.1)
    q.retry("a", 0.2, at_least=7.0)
    q.done("a", 0.2)
    q.add_after("a", 1.0, 0.3)
    q.add("a", 2.0)
    assert q.take(7.1) is None
    assert q.next_due() == 7.2
    assert q.take(7.2) == ("a", 0.0)
    q.done("a", 7.3)
    q.add("a", 7.4)
    assert q.take(7.4) == ("a", 0.0)


def test_a_dropped_key_does_not_come_back() -> None:
    q = queue()
    q.retry("a", 0.0)
    q.drop("a")
    assert q.next_due() is None
    assert q.take(1e9) is None


def test_a_failing_key_does_not_delay_another() -> None:
    q = queue()
    q.add("bad", 0.0)
    q.take(0.0)
    q.retry("bad", 0.0)
    q.done("bad", 0.0)
    q.add("good", 0.0)
    assert q.take(0.0) == ("good", 0.0)


@given(st.lists(st.tuples(st.sampled_from(["add", "after", "retry", "take", "done"]), st.sampled_from("abc"))))
def test_no_key_is_lost_or_worked_on_twice_at_once(steps: list[tuple[str, str]]) -> None:
    q = queue()
    working: set[str] = set()
    owed: set[str] = set()
    now = 0.0
    for step, key in steps:
        now += 1.0
        if step == "add":
            q.add(key, now)
            owed.add(key)
        elif step == "after":
            q.add_after(key, 0.5, now)
            owed.add(key)
        elif step == "retry":
            q.retry(key, now)
            owed.add(key)
        elif step == "take":
            taken = q.take(now)
            if taken is not None:
                assert taken[0] not in working
                working.add(taken[0])
                owed.discard(taken[0])
        elif key in working:
            working.discard(key)
            q.done(key, now)
    for key in working:
        q.done(key, now)
    found = set()
    while (taken := q.take(now + 1e6)) is not None:
        found.add(taken[0])
        q.done(taken[0], now + 1e6)
    assert owed <= found


def test_failing_keys_take_no_more_than_their_share_and_come_in_their_turn() -> None:
    q = queue()
    q.most_failing = 2
    bad = [f"bad-{number}" for number in range(5)]
    for key in bad:
        q.retry(key, 0.0)
    q.add("good", 10.0)
    q.add("later", 11.0)
    taken = [q.take(20.0) for _ in range(4)]
    assert [key for key, _ in filter(None, taken)] == ["good", "later", *bad[:2]]
    assert (q.take(20.0), len(q)) == (None, 3)
    q.forget(bad[0])
    q.done(bad[0], 21.0)
    assert q.take(21.0) == (bad[2], 1.0)
    q.add(bad[0], 22.0)
    assert q.take(22.0) == (bad[0], 0.0)


async def test_keys_that_hang_and_keys_that_fail_for_ever_do_not_delay_the_others() -> None:
    seen: Counter[str] = Counter()
    healthy = {f"good-{number}" for number in range(50)}
    everything, never = asyncio.Event(), asyncio.Event()
    tried_again = asyncio.Event()

    async def work(key: str) -> None:
        seen[key] += 1
        if key.startswith("bad"):
            dispatcher.retry(key)
            if seen[key] > 1:
                tried_again.set()
                await never.wait()
        elif healthy <= seen.keys():
            everything.set()

    dispatcher = Dispatcher(WorkQueue[str](jitter=lambda: 0.001), work, clock=asyncio.get_running_loop().time)
    running = asyncio.create_task(dispatcher.run(4))
    for number in range(20):
        dispatcher.add(f"bad-{number}")
    async with asyncio.timeout(10):
        await tried_again.wait()
        for key in healthy:
            dispatcher.add(key)
        await everything.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_dispatcher_works_on_many_keys_and_survives_a_failure() -> None:
    seen: Counter[str] = Counter()
    everything = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def work(key: str) -> None:
        seen[key] += 1
        if key == "fails" and seen[key] == 1:
            raise RuntimeError("once")
        if seen["fails"] == 2 and len(seen) == 21:
            everything.set()

    dispatcher = Dispatcher(WorkQueue[str](jitter=lambda: 0.01), work, clock=loop.time)
    running = asyncio.create_task(dispatcher.run(3))
    for number in range(20):
        dispatcher.add(f"key-{number}")
    dispatcher.add("fails")
    async with asyncio.timeout(10):
        await everything.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
