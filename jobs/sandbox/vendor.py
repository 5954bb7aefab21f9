"""How every vendor takes a submission, from the first check to the answer, which may be lost."""

import asyncio
import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from .callbacks import Callback, Callbacks
from .faults import LOSSES, POLL_TROUBLES, REFUSALS, Fault
from .images import Format, Input, Recipe, size_for
from .ledger import Submission
from .results import FileHost, Results
from .routes import Route
from .wire import Answer, Drop, Hang, Reply, Request
from .world import World

#: Bodies above this are read on a thread, for decoding their images would hold up all other calls. Bytes.
LARGE_BODY = 64 * 1024
#: Faults of callbacks that are decided when the callback is planned.
CALLBACK_FAULTS = (
    "callback-late",
    "callback-never",
    "callback-twice",
    "callback-first",
    "callback-not-json",
    "callback-garbage",
    "callback-bad-signature",
    "callback-retries",
    "callback-flat",
)
_GATEWAY_PAGE = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"


class Refused(Exception):
    """The request goes no further; carries the reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True)
class Order:
    """What a vendor understood of a request: enough to do the work and to charge for it."""

    operation: str
    prompt: str
    inputs: tuple[Input, ...]
    #: Width divided by height.
    ratio: float
    format: Format
    asked: int
    unit: str
    #: For one image, or for the whole request, as the vendor counts.
    price: float
    per_image: bool
    #: Whether the answer waits for the work.
    wait: bool
    callback_url: str = ""
    client_request_id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class Vendor(ABC):
    """The part of a vendor that is the same for all."""

    name: ClassVar[str]
    #: The operation that a refusal is booked under while the request could not be read.
    operation: ClassVar[str]
    #: Faults of its own that refuse a request before any work.
    own_refusals: ClassVar[tuple[str, ...]] = ()
    #: Faults of its own that change every answer about a submission.
    own_lasting_faults: ClassVar[tuple[str, ...]] = ()
    #: Those of them that the vendor does not charge.
    uncharged_faults: ClassVar[frozenset[str]] = frozenset()
    #: Those of them that make the answer wait for the work.
    sync_faults: ClassVar[frozenset[str]] = frozenset()
    #: What it says for a status, where that differs from the common phrase.
    phrases: ClassVar[Mapping[int, str]] = {}
    #: Late failures that are refunded.
    refunded_statuses: ClassVar[frozenset[int]] = frozenset()

    def __init__(self, world: World, results: Results, callbacks: Callbacks) -> None:
        self.world = world
        self.results = results
        self.callbacks = callbacks

    @abstractmethod
    def routes(self) -> Iterable[Route]:
        """What the vendor answers."""

    @abstractmethod
    def authorize(self, request: Request) -> None:
        """Check the key; raises `Refused`."""

    @abstractmethod
    def error(self, status: int, message: str) -> Answer:
        """An error in the vendor's shape."""

    @abstractmethod
    def file_host(self, submission: Submission) -> FileHost:
        """Where the files of a submission are published."""

    def operation_of(self, request: Request) -> str:  # noqa: ARG002 - overridden by vendors with several operations
        """The operation that a refusal of this request is booked under."""
        return self.operation

    def own_refusal(self, fault: Fault) -> Answer:
        """The answer to one of `own_refusals`."""
        raise NotImplementedError(fault.kind.name)

    def lasting_faults(self, order: Order) -> tuple[str, ...]:
        """The faults that this order can have; one that it cannot show must not be used up by it."""
        return ("fewer", *self.own_lasting_faults, *(CALLBACK_FAULTS if order.callback_url else ()))

    def earlier(self, order: Order) -> Submission | None:  # noqa: ARG002 - overridden by vendors with an idempotency key
        """The submission that this order repeats under the vendor's idempotency key."""
        return None

    def callback(self, submission: Submission, callback: Callback) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of a callback."""
        raise NotImplementedError(submission.operation)

    def updates(self, submission: Submission) -> list[tuple[str, float]]:  # noqa: ARG002 - overridden by vendors with callbacks
        """What callbacks will say of a submission, and when, in seconds since 1970; the last one is final."""
        return []

    async def submit(
        self, request: Request, read: Callable[[Request], Order], answer: Callable[[Submission], Answer]
    ) -> Reply:
        """Take a submission: refuse it, or do the work, charge for it and answer as well as the faults allow."""
        try:
            self._refuse_by_fault()
            self.authorize(request)
            order = await asyncio.to_thread(read, request) if len(request.body) > LARGE_BODY else read(request)
        except Refused as refused:
            self._book_refusal(request, refused.reply)
            return refused.reply
        if first := self.earlier(order):
            repeats = first.details.get("repeats", 0) + 1
            return answer(self.world.ledger.change(first, details={**first.details, "repeats": repeats}))
        submission = self._accept(request, order)
        await self._promise(submission)
        if order.wait or self.sync_faults & submission.faults.keys():
            await self.world.until(submission.ready_at)
        return self._deliver(request, submission, answer)

    async def poll(self, request: Request, answer: Callable[[], Answer]) -> Reply:
        """Answer a status request."""
        try:
            self.authorize(request)
        except Refused as refused:
            return refused.reply
        fault = self.world.faults.take(self.name, *(f"poll-{trouble}" for trouble in POLL_TROUBLES))
        if not fault:
            return answer()
        trouble = fault.kind.name.removeprefix("poll-")
        if trouble.isdigit():
            return self._plain_error(trouble)
        return _broken_reply(trouble, fault, answer())

    def read_json(self, request: Request) -> Any:
        """The JSON object in a request; raises `Refused`."""
        try:
            body = json.loads(request.body)
        except ValueError:
            raise Refused(self.error(400, "the body is not JSON")) from None
        if not isinstance(body, dict):
            raise Refused(self.error(400, "the body is not a JSON object"))
        return body

    def bearer(self, request: Request) -> None:
        """Check a Bearer token; raises `Refused` with a 401."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.world.key_is_good(key.strip()):
            raise Refused(self._plain_error("401"))

    def _plain_error(self, status: str) -> Answer:
        return self.error(int(status), self.phrases.get(int(status), _PHRASES[status]))

    def _refuse_by_fault(self) -> None:
        fault = self.world.faults.take(self.name, "refuse", *REFUSALS, *self.own_refusals)
        if not fault:
            return
        name = fault.kind.name
        if name == "refuse":
            raise Refused(Drop())
        if name in self.own_refusals:
            raise Refused(self.own_refusal(fault))
        status = name[:3]
        answer = self._plain_error(status)
        if name == "429-retry-after":
            answer = replace(answer, headers={**answer.headers, "retry-after": f"{fault.number:g}"})
        raise Refused(answer)

    def _book_refusal(self, request: Request, reply: Reply) -> None:
        status = reply.status if isinstance(reply, Answer) else 0
        number, now = self.world.ledger.next_number(), time.time()
        self.world.ledger.add(
            Submission(number, self.name, self.operation_of(request), now, outcome="refused", status=status)
        )

    def _accept(self, request: Request, order: Order) -> Submission:
        taken = self.world.faults.take_all(self.name, *self.lasting_faults(order))
        made = max(1, order.asked - int(float(taken.get("fewer", 0))))
        width, height = size_for(order.ratio, self.world.settings.image_size)
        now = time.time()
        return self.world.ledger.add(
            Submission(
                number=self.world.ledger.next_number(),
                vendor=self.name,
                operation=order.operation,
                received_at=now,
                task_id=secrets.token_hex(12),
                ready_at=now + self.world.work_seconds(self.name),
                base_url=self.world.settings.public_url or f"http://{request.host}",
                recipe=Recipe(order.operation, order.prompt, order.inputs, width, height, order.format),
                asked=order.asked,
                images=made,
                callback_url=order.callback_url,
                client_request_id=order.client_request_id,
                charged=not self.uncharged_faults & taken.keys(),
                amount=round(order.price * (made if order.per_image else 1), 2),
                unit=order.unit,
                faults=taken,
                details=order.details,
            )
        )

    async def _promise(self, submission: Submission) -> None:
        faults = submission.faults
        if not submission.callback_url or "callback-never" in faults:
            return
        updates = self.updates(submission)
        if "callback-first" in faults and updates:
            await self.callbacks.post_now(submission, updates.pop()[0], faults)
        often, late = (2 if "callback-twice" in faults else 1), float(faults.get("callback-late", 0))
        for step, due_at in updates * often:
            self.callbacks.promise(submission, step, due_at + late, faults)

    def _deliver(self, request: Request, submission: Submission, answer: Callable[[Submission], Answer]) -> Reply:
        reply: Reply = answer(submission)
        fault = self.world.faults.take(self.name, *LOSSES)
        if fault and fault.kind.name in {"504", "500-late"}:
            reply = self._plain_error(fault.kind.name[:3])
        elif fault:
            reply = _broken_reply(fault.kind.name, fault, reply)
        status = reply.status if isinstance(reply, Answer) else 0
        whole = isinstance(reply, Answer) and reply.sent is None and not request.gone()
        self.world.ledger.change(
            submission,
            outcome="answered" if whole else "dropped",
            status=status,
            refunded=submission.charged and status in self.refunded_statuses,
        )
        return reply


def spoiled(body: bytes, faults: Mapping[str, str]) -> bytes:
    """The body of a callback with its faults."""
    if "callback-not-json" in faults:
        return _GATEWAY_PAGE
    return b'{"hello": "world"}' if "callback-garbage" in faults else body


def _broken_reply(name: str, fault: Fault, reply: Reply) -> Reply:
    match name:
        case "hang":
            return Hang(fault.number or None)
        case "drop" | "reset":
            return Drop(reset=name == "reset")
        case "truncated" if isinstance(reply, Answer):
            return replace(reply, sent=len(reply.body) // 2)
        case _:
            return Answer(200, _GATEWAY_PAGE, {"content-type": "text/html"})


_PHRASES = {
    "400": "Invalid request",
    "401": "Invalid API key",
    "402": "Insufficient credits",
    "403": "Forbidden",
    "404": "Not found",
    "429": "Too many requests",
    "500": "Internal server error",
    "502": "Bad gateway",
    "503": "Service unavailable",
    "504": "Generation timeout",
}
