"""Waiting with a limit, without losing a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from tflotilla.device.waiting import happens, within


def test_what_is_quick_enough_is_returned() -> None:
    async def quick() -> int:
        await asyncio.sleep(0)
        return 7

    assert asyncio.run(within(60, quick())) == 7


def test_what_takes_too_long_is_cancelled() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(0.01, slow()))
    assert ended == ["cancelled"]


def test_an_error_comes_through() -> None:
    async def broken() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(within(60, broken()))


def test_an_event_that_is_set_or_is_not() -> None:
    async def story() -> tuple[bool, bool, bool]:
        event = asyncio.Event()
        late = await happens(event, 0.01)
        asyncio.get_running_loop().call_soon(event.set)
        return late, await happens(event, 60), await happens(event, 60)

    assert asyncio.run(story()) == (False, True, True)


@pytest.mark.parametrize("turns", range(6))
def test_a_cancellation_in_the_moment_of_success_is_not_lost(turns: int) -> None:
    """`asyncio.wait_for` loses it before Python 3.12: the loop below would go on for ever."""

    async def loop(event: asyncio.Event) -> None:
        while True:
            await happens(event, 60)
            event.clear()

    async def story() -> None:
        event = asyncio.Event()
        task = asyncio.create_task(loop(event))
        await asyncio.sleep(0.01)
        event.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=30)
        assert done

    asyncio.run(story())
