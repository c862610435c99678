"""Waiting with a limit, without `asyncio.wait_for`.

Before Python 3.12 that one loses a cancellation which comes in the moment of success, and a task that can't be
cancelled keeps an agent from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


async def within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns. Raises asyncio.TimeoutError when it takes longer, after cancelling it."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        if not done:
            raise asyncio.TimeoutError
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
    return task.result()


async def happens(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until an event is set, or for so long; return whether it is."""
    if not event.is_set():
        waiter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait([waiter], timeout=timeout_s)
        finally:
            waiter.cancel()
    return event.is_set()
