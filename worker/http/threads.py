"""Keeps long computations off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: what is parsed, encoded or hashed on the event loop, in bytes; more than that goes to a thread
ON_THE_LOOP_BYTES = 256 << 10


async def compute(size: int, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that handles `size` bytes: here, or in a thread if those are many."""
    if size <= ON_THE_LOOP_BYTES:
        return call(*args, **kwargs)
    return await asyncio.to_thread(call, *args, **kwargs)
