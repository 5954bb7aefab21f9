"""The providers as remote services: documented shapes, faults by chance, outages, and what each job was charged."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from jobs.providers._contract import Response
from worker.transport import NotSent, OutcomeUnknown

#: called with provider, token and body, as a provider calls the receiver
Receiver = Callable[[str, str, Any], None]


def png(name: str) -> bytes:
    """A PNG of 8 by 8 pixels that is different for each name."""
    color = zlib.crc32(name.encode()).to_bytes(4, "big")[:3]
    rows = b"".join(b"\x00" + color * 8 for _ in range(8))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@dataclass
class Task:
    """One rendering of a provider."""

    prompt: str
    images: int
    done: bool = False
    failed: bool = False

    def urls(self) -> list[str]:
        return [f"https://cdn.example/{self.prompt}/{index}.png" for index in range(self.images)]


@dataclass
class RemoteProviders:
    """All four. Each decision depends on the seed, the prompt and the number of requests for it, not on who comes first."""

    seed: int
    receiver: Receiver
    #: how many requests of a kind came for a prompt
    _counts: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    #: how many times each prompt was charged
    charged: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    #: prompts for which a request or an answer was lost, so that an unknown outcome is right
    troubled: set[str] = field(default_factory=set)
    #: prompts that were refused, for now, although they were charged
    lied: set[str] = field(default_factory=set)
    #: for each prompt the tokens with which the receiver accepted a success
    accepted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tasks: dict[str, Task] = field(default_factory=dict)
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    def chance(self, kind: str, prompt: str) -> random.Random:
        self._counts[kind, prompt] += 1
        return random.Random(f"{self.seed} {kind} {prompt} {self._counts[kind, prompt]}")

    def submits(self, prompt: str) -> int:
        """How many submissions of this prompt arrived."""
        return self._counts["submit", prompt]

    # --- the transport -------------------------------------------------------------------------------------

    async def send(self, method: str, url: str, **request: Any) -> Response:
        """One exchange. Raises NotSent or OutcomeUnknown, as the real transport does."""
        host, path = urlsplit(url).netloc, urlsplit(url).path
        if method == "GET":
            return await self._polled(host, path)
        body = _body(request)
        chance = self.chance("submit", body["prompt"])
        await asyncio.sleep(chance.uniform(0.01, 0.2))
        if self._is_away(host):
            if chance.random() < 0.5:
                return Response(503, {}, b"{}")
            raise NotSent(host, "connection refused")
        if chance.random() < 0.02:
            raise NotSent(host, "connection refused")
        if chance.random() < 0.02:
            self.troubled.add(body["prompt"])
            raise OutcomeUnknown(host, "closed before the request was read")
        response = await self._submitted(host, body, chance)
        if chance.random() < 0.03:
            self.troubled.add(body["prompt"])
            raise OutcomeUnknown(host, "closed before the answer")
        await asyncio.sleep(chance.uniform(0.01, 0.5))
        return response

    def _is_away(self, host: str) -> bool:
        """Whether the provider takes no submissions now: twenty seconds out of fifty, at another time for each."""
        return (asyncio.get_running_loop().time() + zlib.crc32(f"{self.seed} {host}".encode())) % 50 < 20

    async def download(self, url: str, **_: Any) -> Response:
        """A result, or the input image."""
        path = urlsplit(url).path
        chance = self.chance("download", path)
        await asyncio.sleep(chance.uniform(0.01, 0.3))
        if chance.random() < 0.03:
            raise OutcomeUnknown("cdn.example", "reset")
        if chance.random() < 0.02:
            return Response(503)
        content = png(path)
        return Response(200, {}, content[:-20] if chance.random() < 0.02 else content)

    # --- the providers ----------------------------------------------------------------------------------------------

    async def _submitted(self, host: str, body: Mapping[str, Any], chance: random.Random) -> Response:
        refusal = _refusal(chance)
        if refusal is not None:
            return refusal
        if host == "aimlapi.example":
            return await self._synchronous(body, chance)
        key = body.get("client_request_id")
        if key is not None and key in self.tasks:
            return _json(202, {"job_id": key, "status": "running"})
        number = self._counts["submit", body["prompt"]]
        name = key or f"task-{body['prompt']}-{number}"
        self.charged[body["prompt"]] += 1
        task = self.tasks[name] = Task(f"{body['prompt']}/{number}", body["images"])
        self._spawn(self._rendered(host, name, task, body.get("callback"), chance))
        if chance.random() < 0.01:
            self.troubled.add(body["prompt"])
            return _json(502, {"error": "bad gateway"})
        if chance.random() < 0.05 and self._lies(host, name, body):
            return Response(503, {}, b"{}")
        return _json(200, _ACKNOWLEDGED[host](name))

    def _lies(self, host: str, name: str, body: Mapping[str, Any]) -> bool:
        """Whether the submission is refused although it is being rendered.

        It never is before the receiver knows, or without an idempotency key: that would be charged twice.
        """
        if body.get("client_request_id") is not None:
            self.lied.add(body["prompt"])
            return True
        if host != "chainhub.example" or body.get("callback") is None:
            return False
        provider, token = body["callback"].rsplit("/", 2)[1:]
        self.receiver(provider, token, _ACKNOWLEDGED[host](name)["data"])
        return True

    async def _synchronous(self, body: Mapping[str, Any], chance: random.Random) -> Response:
        await asyncio.sleep(chance.uniform(1, 12))
        self.charged[body["prompt"]] += 1
        content = base64.b64encode(png(f"/{body['prompt']}/inline")).decode()
        return _json(200, {"data": [{"b64_json": content}], "meta": {"usage": {"tokens_used": 1}}})

    async def _rendered(self, host: str, name: str, task: Task, callback: str | None, chance: random.Random) -> None:
        await asyncio.sleep(0.01 if chance.random() < 0.1 else chance.uniform(0.5, 15))
        if chance.random() < 0.01:
            task.failed = True
        task.done = True
        if callback is None or chance.random() < 0.02:
            return
        provider, token = callback.rsplit("/", 2)[1:]
        for _ in range(1 + (chance.random() < 0.15)):
            if chance.random() < 0.05:
                await asyncio.sleep(chance.uniform(1, 5))  # the receiver is away
            self.receiver(provider, token, _RESULT[host](name, task))
            if not task.failed:
                self.accepted[task.prompt.split("/")[0]].add(token)
            await asyncio.sleep(chance.uniform(0, 10))

    async def _polled(self, host: str, path: str) -> Response:
        name = path.rsplit("/", 1)[1]
        task = self.tasks[name]
        chance = self.chance("poll", task.prompt)
        await asyncio.sleep(chance.uniform(0.01, 0.3))
        if chance.random() < 0.05:
            raise OutcomeUnknown(host, "reset")
        return _json(200, _RESULT[host](name, task) if task.done else _ACKNOWLEDGED[host](name))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    @property
    def busy(self) -> bool:
        """Whether anything is still being rendered or called back."""
        return bool(self._background)


def _body(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The relevant part of a submission, whichever provider it is for."""
    if request.get("form"):
        form = request["form"]
        inner = json.loads(form["image_request"])
        return {"prompt": inner["prompt"], "images": inner["num_images"], "callback": form.get("callback_url")}
    body = request["json"]
    return {
        "prompt": body["prompt"],
        "images": body.get("num_images") or body.get("num_output_images") or 1,
        "callback": body.get("callback") or body.get("callback_url"),
        "client_request_id": body.get("client_request_id"),
    }


def _refusal(chance: random.Random) -> Response | None:
    drawn = chance.random()
    if drawn < 0.04:
        return Response(429, {"retry-after": "2"}, b"{}")
    if drawn < 0.06:
        return Response(503, {}, b"{}")
    return Response(422, {}, b'{"detail": "no such style"}') if drawn < 0.065 else None


def _json(status: int, body: Any) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(body).encode())


_ACKNOWLEDGED: Mapping[str, Callable[[str], Any]] = {
    "deepmode.example": lambda name: {"message": "Generating images..."},
    "chainhub.example": lambda name: {"code": 0, "data": {"task_id": name, "task_status": "processing"}},
    "phota.example": lambda name: {"job_id": name, "status": "running"},
}

_RESULT: Mapping[str, Callable[[str, Task], Any]] = {
    "deepmode.example": lambda name, task: (
        {"status": "failed", "error": "out of memory"}
        if task.failed
        else {"images": [{"id": f"img{index}", "image_url": url} for index, url in enumerate(task.urls())]}
    ),
    "chainhub.example": lambda name, task: {
        "task_id": name,
        "task_status": "failed" if task.failed else "succeed",
        "task_result": {"images": [{"index": index, "url": url} for index, url in enumerate(task.urls())]},
    },
    "phota.example": lambda name, task: (
        {"job_id": name, "status": "failed"}
        if task.failed
        else {"job_id": name, "status": "succeeded", "result": {"download_urls": task.urls()}}
    ),
}
