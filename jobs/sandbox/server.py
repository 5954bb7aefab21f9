"""A sandbox on a port: in a thread of the caller's process, or as the process itself."""

import asyncio
import contextlib
import http.client
import json
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .app import App, create_app
from .faults import VENDORS, parse
from .wire import Connection
from .world import Latency, Settings

#: How many connections may wait to be accepted: a benchmark opens a thousand at once.
BACKLOG = 4096
#: How long `start` waits for the port, and `stop` for the thread. Seconds.
PATIENCE_SECONDS = 10.0


class Sandbox:
    """The vendors on one local port, started and stopped with the context or by hand.

    `latency_seconds` is a number or a pair of bounds; `faults` are specifications as in `jobs.sandbox.faults`;
    `state` is a file from which a later sandbox continues where this one ended; `webhook_secrets` maps a vendor
    to the secret that its callbacks are signed with. Raises `UnknownFault` and `OSError` (the port is taken).
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        faults: Iterable[str] = (),
        latency_seconds: Latency = 0.0,
        state: str | Path | None = None,
        result_life_seconds: float | None = None,
        api_key: str | None = None,
        webhook_secrets: Mapping[str, str] | None = None,
        public_url: str | None = None,
        image_size: int = 512,
        seed: int = 0,
    ) -> None:
        self._host = host
        self._port = port
        self._faults = tuple(faults)
        for specification in self._faults:
            parse(specification)
        self._settings = Settings(
            latency_seconds=latency_seconds,
            result_life_seconds=result_life_seconds,
            api_key=api_key,
            webhook_secrets=webhook_secrets or {},
            public_url=public_url,
            image_size=image_size,
            state=Path(state) if state else None,
            seed=seed,
        )
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Scheme and authority, as `http://127.0.0.1:8085`."""
        host = "127.0.0.1" if self._host in {"0.0.0.0", "::", ""} else self._host  # noqa: S104 - only compared
        return f"http://{host}:{self._port}"

    @property
    def base_urls(self) -> dict[str, str]:
        """The base URL of each vendor."""
        return {vendor: f"{self.url}/{vendor}" for vendor in VENDORS}

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which Darkroom calls the sandbox instead of the vendors."""
        key = self._settings.api_key or "sandbox"
        urls = {f"{vendor.upper()}_BASE_URL": url for vendor, url in self.base_urls.items()}
        return urls | {f"{vendor.upper()}_API_KEY": key for vendor in VENDORS}

    def start(self) -> "Sandbox":
        """Listen; returns when the port is open."""

        def run() -> None:
            try:
                _run(self._serve(lambda _sandbox: self._ready.set()))
            except BaseException as error:  # noqa: BLE001 - raised again by the caller of `start`
                self._failure = error
                self._ready.set()

        self._ready.clear()
        self._thread = threading.Thread(target=run, name="sandbox", daemon=True)
        self._thread.start()
        if not self._ready.wait(PATIENCE_SECONDS):
            raise TimeoutError(f"the sandbox did not open its port within {PATIENCE_SECONDS:g} seconds")
        if self._failure:
            raise self._failure
        return self

    def stop(self) -> None:
        """Close every connection and the port; returns when nothing of it runs any more."""
        if self._loop and self._ending and self._thread:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(PATIENCE_SECONDS)
        self._thread = self._loop = self._ending = None

    def __enter__(self) -> "Sandbox":
        return self.start()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.stop()

    def run_forever(self, on_ready: Callable[["Sandbox"], None] | None = None) -> None:
        """Be the process: serve until it is interrupted."""

        def ready(sandbox: Sandbox) -> None:
            assert self._ending
            with contextlib.suppress(NotImplementedError):  # Windows has no such handlers
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ending.set)
            if on_ready:
                on_ready(sandbox)

        with contextlib.suppress(KeyboardInterrupt):
            _run(self._serve(ready))

    def arm(self, *specifications: str) -> None:
        """Arm faults; raises `UnknownFault`."""
        for specification in specifications:
            parse(specification)
        self._control("POST", "faults", {"faults": list(specifications)})

    def disarm(self, name: str | None = None) -> None:
        """Clear all faults, or those of one name."""
        self._control("DELETE", f"faults?name={name}" if name else "faults")

    def submissions(self) -> list[dict[str, Any]]:
        """The ledger, as the control API shows it."""
        return list(self._control("GET", "ledger")["submissions"])

    def served(self) -> list[dict[str, Any]]:
        """Every image that went out, with its digest."""
        return list(self._control("GET", "served")["served"])

    def reset(self) -> None:
        """Forget submissions, results, callbacks and faults."""
        self._control("POST", "reset")

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        # Not httpx: a client of it reads all certificates of the system first, 30 ms for nothing.
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, f"/_sandbox/{path}", None if body is None else json.dumps(body))
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"the sandbox answered {answer.status} to {method} {path}")
            return json.loads(answer.read())

    async def _serve(self, on_ready: Callable[["Sandbox"], None] | None) -> None:
        app = create_app(self._settings)
        for specification in self._faults:
            app.world.faults.arm(specification)
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        listener = Listener(app)
        try:
            self._port = await listener.open(self._host, self._port)
            app.start()
            if on_ready:
                on_ready(self)
            await self._ending.wait()
        finally:
            await listener.close()
            await app.stop()


class Listener:
    """An open port and the connections that came in by it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses for 0."""
        self._server = await asyncio.start_server(self.accept, host, port, backlog=BACKLOG)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close the port and every connection, answered or not."""
        if self._server:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server:
            await self._server.wait_closed()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection in a task of its own."""
        task = asyncio.get_running_loop().create_task(Connection(reader, writer, self._app).serve())
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        from uvloop import new_event_loop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)
