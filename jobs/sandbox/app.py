"""The vendors, their file hosts and the control API behind one address."""

import logging
import time
from dataclasses import replace
from email.utils import format_datetime

from .aimlapi import AimlApi
from .callbacks import Callbacks
from .chainhub import ChainHub
from .control import Control, Traffic
from .deepmode import DeepMode
from .phota import Phota
from .results import Results
from .routes import NoRoute, Routes
from .vendor import Vendor
from .wire import Answer, Reply, Request, json_answer
from .world import Settings, World

_log = logging.getLogger("jobs.sandbox")


class App:
    """One sandbox as a function from requests to replies."""

    def __init__(self, settings: Settings) -> None:
        self.world = World(settings)
        self.traffic = Traffic()
        self._results = Results(self.world)
        self.callbacks = Callbacks(self.world, lambda name: self._vendors[name].callback)
        self._vendors: dict[str, Vendor] = {
            kind.name: kind(self.world, self._results, self.callbacks) for kind in (DeepMode, ChainHub, Phota, AimlApi)
        }
        self._routes = {name: Routes(vendor.routes()) for name, vendor in self._vendors.items()}
        self._control = Control(self.world, self.callbacks, self.traffic)
        self._routes["_sandbox"] = Routes(self._control.routes())

    def start(self) -> None:
        """Load what an earlier process left in the state file; needs a running loop."""
        for event in self.world.journal.read():
            self.world.ledger.replay(event)
            self.callbacks.replay(event)
        self.callbacks.start()

    async def stop(self) -> None:
        await self.callbacks.stop()
        self.world.journal.close()

    async def __call__(self, request: Request) -> Reply:
        started = time.perf_counter()
        where = request.path.split("/", 2)[1]
        self.traffic.enter(where)
        try:
            reply = await self._dispatch(where, request)
        except Exception:  # noqa: BLE001 - an error of the sandbox must not look like one of its faults
            _log.exception("the sandbox failed at %s", where)
            return json_answer(500, {"message": "the sandbox itself failed; see its log"})
        finally:
            self.traffic.leave()
        took = time.perf_counter() - started
        if isinstance(reply, Answer):
            date = format_datetime(self.world.now(where), usegmt=True)
            reply = replace(reply, headers={"date": date, "server": "darkroom-sandbox", **reply.headers})
        outcome = str(reply.status) if isinstance(reply, Answer) else type(reply).__name__.lower()
        # The path of a request holds ids at most; its query may be a signature and is left out.
        _log.info("%s %s: %s in %.3f s", request.method, request.path, outcome, took)
        return reply

    async def _dispatch(self, where: str, request: Request) -> Reply:
        if where == "files":
            return await self._results.serve(request, lambda one: self._vendors[one.vendor].file_host(one))
        if where not in self._routes:
            return json_answer(
                404, {"message": f"unknown path; it begins with one of: {', '.join(sorted(self._routes))}"}
            )
        try:
            return await self._routes[where].dispatch(request, request.path[len(where) + 1 :])
        except NoRoute as none:
            if vendor := self._vendors.get(where):
                return vendor.error(none.status, none.message)
            return json_answer(none.status, {"message": none.message})


def create_app(settings: Settings | None = None) -> App:
    """A sandbox that is not listening yet; `Sandbox` gives it a port."""
    return App(settings or Settings())
