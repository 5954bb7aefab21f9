"""The control API under /_sandbox/: what happened, and which faults come next.

=======  ==========  ============================================================================================
GET      ledger      `{"submissions": [...], "charged": {vendor: {unit: amount}}}`; `?digests=0` leaves out the
                     SHA-256 of each result, which would draw every image that was not fetched
GET      served      `{"served": [...]}`: each file or inline image that went out, with size and SHA-256
GET      faults      `{"armed": [...], "known": {name: help}}`
POST     faults      `{"faults": ["drop@deepmode*1", ...]}` arms; 400 for an unknown one
DELETE   faults      clears all, or those of `?name=`
GET      traffic     requests in flight now and at most, requests by vendor, callbacks still owed
POST     reset       forgets everything
GET      health      `{"status": "ok"}`
=======  ==========  ============================================================================================
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from .callbacks import Callbacks
from .faults import VOCABULARY, UnknownFault, parse
from .ledger import totals
from .routes import Route
from .wire import Answer, Request, json_answer
from .world import World


@dataclass
class Traffic:
    """Counts of the requests to a sandbox, for benchmarks."""

    in_flight: int = 0
    peak_in_flight: int = 0
    #: By vendor, or by `files`.
    requests: Counter[str] = field(default_factory=Counter)

    def enter(self, where: str) -> None:
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.requests[where] += 1

    def leave(self) -> None:
        self.in_flight -= 1

    def view(self) -> dict[str, Any]:
        return {
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "requests": dict(self.requests),
        }

    def clear(self) -> None:
        self.peak_in_flight = self.in_flight
        self.requests.clear()


class Control:
    """The handlers of the control API."""

    def __init__(self, world: World, callbacks: Callbacks, traffic: Traffic) -> None:
        self._world = world
        self._callbacks = callbacks
        self._traffic = traffic

    def routes(self) -> Iterable[Route]:
        yield "GET", "/ledger", self.ledger
        yield "GET", "/served", self.served
        yield "GET", "/faults", self.faults
        yield "POST", "/faults", self.arm
        yield "DELETE", "/faults", self.disarm
        yield "GET", "/traffic", self.traffic
        yield "POST", "/reset", self.reset
        yield "GET", "/health", self.health

    async def ledger(self, request: Request) -> Answer:
        submissions = self._world.ledger.submissions()
        digests = request.query.get("digests") != "0"

        def views() -> list[dict[str, Any]]:
            return [{**one.view(digests=digests), "callbacks": self._callbacks.view(one.number)} for one in submissions]

        shown = await asyncio.to_thread(views)
        return json_answer(200, {"submissions": shown, "charged": totals(submissions)})

    async def served(self, _request: Request) -> Answer:
        return json_answer(200, {"served": [asdict(serving) for serving in self._world.ledger.servings()]})

    async def faults(self, _request: Request) -> Answer:
        known = {kind.name: kind.help for kind in VOCABULARY.values()}
        return json_answer(200, {"armed": self._world.faults.view(), "known": known})

    async def arm(self, request: Request) -> Answer:
        try:
            specifications = json.loads(request.body)["faults"]
            for specification in specifications:
                parse(specification)
        except UnknownFault as error:
            return json_answer(400, {"message": str(error)})
        except (ValueError, KeyError, TypeError):
            return json_answer(400, {"message": 'expected: {"faults": ["name[=value][%chance][@vendor][*times]"]}'})
        for specification in specifications:
            self._world.faults.arm(specification)
        return await self.faults(request)

    async def disarm(self, request: Request) -> Answer:
        self._world.faults.clear(request.query.get("name"))
        return await self.faults(request)

    async def traffic(self, _request: Request) -> Answer:
        return json_answer(200, {**self._traffic.view(), "callbacks_owed": self._callbacks.owed()})

    async def reset(self, _request: Request) -> Answer:
        self._callbacks.clear()
        self._world.clear()
        self._traffic.clear()
        return json_answer(200, {"status": "reset"})

    async def health(self, _request: Request) -> Answer:
        return json_answer(200, {"status": "ok"})
