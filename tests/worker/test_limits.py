"""The bounds of a process: running jobs, and bytes of images."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from worker.limits import ConcurrencyLimit, MemoryBudget


def test_each_job_has_one_slot() -> None:
    slots = ConcurrencyLimit(2)
    assert slots.acquire("a", wait=False)
    assert not slots.acquire("a", wait=False)
    assert slots.held == {"a"}
    assert slots.room == 1


def test_there_are_only_so_many_slots() -> None:
    slots = ConcurrencyLimit(2)
    assert [slots.acquire(name, wait=False) for name in "abc"] == [True, True, False]
    slots.release("a")
    assert slots.acquire("c", wait=False)


def test_freeing_what_was_not_taken_changes_nothing() -> None:
    slots = ConcurrencyLimit(1)
    slots.release("a")
    assert slots.room == 1


def test_a_waiting_job_gets_the_slot_that_is_freed() -> None:
    slots, taken = ConcurrencyLimit(1), threading.Event()
    slots.acquire("a", wait=False)
    waiting = threading.Thread(target=lambda: slots.acquire("b", wait=True) and taken.set())
    waiting.start()
    assert not taken.wait(0.05)
    slots.release("a")
    waiting.join(5)
    assert slots.held == {"b"}


def test_closing_releases_those_that_wait_without_a_slot() -> None:
    slots, answers = ConcurrencyLimit(1), []
    slots.acquire("a", wait=False)
    waiting = threading.Thread(target=lambda: answers.append(slots.acquire("b", wait=True)))
    waiting.start()
    slots.close()
    waiting.join(5)
    assert answers == [False]
    slots.release("a")
    assert not slots.acquire("c", wait=False)
    assert slots.room == 0


def test_many_threads_never_hold_more_than_the_limit() -> None:
    slots, most = ConcurrencyLimit(5), []

    def work(name: int) -> None:
        for turn in range(50):
            if slots.acquire(f"{name}-{turn}", wait=True):
                most.append(len(slots.held))
                slots.release(f"{name}-{turn}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 600
    assert max(most) <= 5
    assert slots.held == frozenset()


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(bounded())


def test_a_reservation_waits_for_bytes_and_frees_them() -> None:
    async def story() -> None:
        room, order = MemoryBudget(100), []

        async def hold(name: str, size: int, until: asyncio.Event) -> None:
            async with room.reservation() as reserve:
                await reserve(size)
                order.append(name)
                await until.wait()

        first, rest = asyncio.Event(), asyncio.Event()
        rest.set()
        holding = [asyncio.create_task(hold("large", 80, first))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        holding.append(asyncio.create_task(hold("second", 40, rest)))
        await asyncio.sleep(0.02)
        assert order == ["large"]
        first.set()
        await asyncio.gather(*holding)
        assert order == ["large", "second"]
        assert room.reserved == 0

    run(story())


def test_a_reservation_larger_than_the_budget_goes_alone() -> None:
    async def story() -> None:
        room = MemoryBudget(10)
        async with room.reservation() as reserve:
            await reserve(1_000)
        assert room.reserved == 0

    run(story())


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_bytes_are_freed_whatever_happens(error: type[BaseException]) -> None:
    async def story() -> None:
        room = MemoryBudget(10)

        async def work() -> None:
            async with room.reservation() as reserve:
                await reserve(10)
                raise error

        with pytest.raises(error):
            await work()
        assert room.reserved == 0

    run(story())


def test_one_holder_may_reserve_more_than_once() -> None:
    async def story() -> None:
        room = MemoryBudget(100)
        async with room.reservation() as reserve:
            await reserve(30)
            await reserve(30)
            assert room.reserved == 60
        assert room.reserved == 0

    run(story())


def test_reservations_that_grow_never_wait_for_each_other_in_a_circle() -> None:
    async def story() -> None:
        room = MemoryBudget(100)
        peak = 0

        async def growing() -> None:
            nonlocal peak
            async with room.reservation() as reserve:
                for _ in range(4):
                    await reserve(25)
                    peak = max(peak, room.reserved)
                    await asyncio.sleep(0)

        await asyncio.wait_for(asyncio.gather(*(growing() for _ in range(8))), timeout=5)
        assert room.reserved == 0
        assert peak <= 200

    run(story())
