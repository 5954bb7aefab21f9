"""Callbacks: posted when the work is done, or when a fault says; the rest is posted after a restart."""

import asyncio
import logging
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import httpx

from .journal import Event
from .ledger import Submission, digest_of
from .world import World

#: How many callbacks are posted at once.
POSTING = 32
#: How long the client may take to answer a callback. Seconds.
TIMEOUT_SECONDS = 30.0
#: Between two tries of the same callback. Seconds.
RETRY_SECONDS = 0.5

_log = logging.getLogger("jobs.sandbox")


#: Reading the system's certificates takes 30 ms, so all clients of a process share them.
_certificates = cache(ssl.create_default_context)
#: Writes a callback: from the submission and the step to its body and headers.
Author = Callable[[Submission, "Callback"], tuple[bytes, Mapping[str, str]]]


@dataclass(frozen=True)
class Callback:
    """One message that the sandbox owes a client."""

    #: From 1, in the order of planning.
    number: int
    #: The submission that it is about.
    submission: int
    #: What it says: the vendor's own status of the task.
    step: str
    #: Seconds since 1970.
    due_at: float
    #: Tries that remain after one that was not answered 2xx.
    retries: int = 0
    #: Faults of this one message, with their values.
    faults: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Posted:
    """How one try of a callback went."""

    callback: int
    submission: int
    step: str
    at: float
    #: Of the client's answer; 0 when there was none.
    status: int
    #: Class of the exception when there was no answer.
    error: str
    body_sha256: str
    final: bool


class Callbacks:
    """Plans callbacks and posts them."""

    def __init__(self, world: World, author_of: Callable[[str], Author]) -> None:
        self._world = world
        self._author_of = author_of
        self._count = 0
        self._owed: dict[int, Callback] = {}
        self._posted: defaultdict[int, list[Posted]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()
        # A client for each slot: the pool of a shared one costs the square of its connections.
        self._clients: list[httpx.AsyncClient] = []
        self._idle: asyncio.Queue[httpx.AsyncClient] = asyncio.Queue()

    def promise(self, submission: Submission, step: str, due_at: float, faults: Mapping[str, str]) -> Callback:
        """Plan one callback; it is posted at `due_at`, after a restart if need be."""
        self._count += 1
        retries = int(float(faults.get("callback-retries", 0)))
        callback = Callback(self._count, submission.number, step, due_at, retries, faults)
        self._world.journal.write("callback", **asdict(callback))
        self._owe(callback)
        return callback

    async def post_now(self, submission: Submission, step: str, faults: Mapping[str, str]) -> None:
        """Post one callback and wait for the answer."""
        self._count += 1
        await self._post(Callback(self._count, submission.number, step, time.time(), 0, faults))

    def replay(self, event: Event) -> None:
        """Load one event of an earlier process; `start` posts what is still owed."""
        fields = {name: value for name, value in event.items() if name != "event"}
        if event["event"] == "callback":
            callback = Callback(**fields)
            self._count = max(self._count, callback.number)
            self._owed[callback.number] = callback
        elif event["event"] == "posted":
            self._note(Posted(**fields))

    def start(self) -> None:
        """Begin to post what an earlier process still owed."""
        for callback in list(self._owed.values()):
            self._owe(callback)

    async def stop(self) -> None:
        self._cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.aclose()

    def clear(self) -> None:
        self._cancel()
        self._owed.clear()
        self._posted.clear()

    def view(self, submission: int) -> list[dict[str, Any]]:
        """Every try of every callback of a submission, in order."""
        return [asdict(posted) for posted in self._posted.get(submission, [])]

    def owed(self) -> int:
        """How many are still to be posted."""
        return len(self._owed)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _owe(self, callback: Callback) -> None:
        self._owed[callback.number] = callback
        task = asyncio.get_running_loop().create_task(self._keep(callback))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, callback: Callback) -> None:
        await self._world.until(callback.due_at)
        for left in range(callback.retries, -1, -1):
            if await self._post(callback, final=left == 0):
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _post(self, callback: Callback, *, final: bool = True) -> bool:
        submission = self._world.ledger.submission(callback.submission)
        body, headers = self._author_of(submission.vendor)(submission, callback)
        status, error = await self._send(submission.callback_url, body, headers)
        good = 200 <= status < 300
        posted = Posted(
            callback.number,
            submission.number,
            callback.step,
            time.time(),
            status,
            error,
            digest_of(body),
            final or good,
        )
        self._world.journal.write("posted", **asdict(posted))
        self._note(posted)
        _log.info("callback %s of %s: %s", callback.step, submission.operation, status or error)
        return good

    async def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        if self._idle.empty() and len(self._clients) < POSTING:
            client = httpx.AsyncClient(
                timeout=TIMEOUT_SECONDS,
                # A connection that a restarting client closed must not cost a callback that is posted only once.
                limits=httpx.Limits(max_keepalive_connections=0),
                verify=_certificates(),
                trust_env=False,
            )
            self._clients.append(client)
        else:
            client = await self._idle.get()
        try:
            answer = await client.post(url, content=body, headers=dict(headers))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return 0, type(error).__name__
        finally:
            self._idle.put_nowait(client)
        return answer.status_code, ""

    def _note(self, posted: Posted) -> None:
        self._posted[posted.submission].append(posted)
        if posted.final:
            self._owed.pop(posted.callback, None)
