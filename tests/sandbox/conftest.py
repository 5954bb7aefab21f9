"""A sandbox, a client that speaks to its four vendors, and a receiver for its callbacks."""

import base64
import io
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.sandbox import Sandbox


def picture(color: str = "red", size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


@dataclass
class Vendors:
    """Well-formed requests to the four vendors, each with its particulars as keywords."""

    sandbox: Sandbox
    client: httpx.Client
    key: str = "a-key"

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}".strip()}

    def url(self, vendor: str, path: str) -> str:
        return self.sandbox.base_urls[vendor] + path

    def get(self, vendor: str, path: str) -> httpx.Response:
        headers = {"x-api-key": self.key} if vendor == "phota" else self.bearer
        return self.client.get(self.url(vendor, path), headers=headers)

    def fetch(self, url: str) -> httpx.Response:
        return self.client.get(url)

    def deepmode(self, **fields: Any) -> httpx.Response:
        body = {"model_id": "b8a9", "prompt": "a lake at dawn", **fields}
        return self.client.post(self.url("deepmode", "/api/images/generate"), json=body, headers=self.bearer)

    def face_id_remix(self, files: dict[str, bytes] | None = None, **fields: str) -> httpx.Response:
        parts = {"identity_image": picture("red"), "artwork_image": picture("blue"), "mask_image": picture("white")}
        url = self.url("deepmode", "/api/face-id-remix")
        return self.client.post(url, files=named(parts if files is None else files), data=fields, headers=self.bearer)

    def chainhub(self, image: bytes | None = None, form: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        data = {"image_request": json.dumps({"prompt": "a serene beach", **fields}), **(form or {})}
        url = self.url("chainhub", "/ideogram/remix")
        files = named({"image_file": picture() if image is None else image})
        return self.client.post(url, files=files, data=data, headers=self.bearer)

    def phota(self, **fields: Any) -> httpx.Response:
        body = {
            "input_image": base64.b64encode(picture("green")).decode(),
            "reference_image": "https://example.com/style.jpg",
            "num_output_images": 1,
            "output_format": "jpg",
            "response_mode": "urls",
            **fields,
        }
        url = self.url("phota", "/v1/phota/remix")
        return self.client.post(url, json=body, headers={"x-api-key": self.key})

    def aimlapi(self, **fields: Any) -> httpx.Response:
        body = {
            "model": "reve/remix-edit-image",
            "image_urls": ["https://example.com/t-rex.png"],
            "prompt": "The T-Rex wears a suit",
            **fields,
        }
        return self.client.post(self.url("aimlapi", "/v1/images/generations"), json=body, headers=self.bearer)

    def submit(self, vendor: str, **fields: Any) -> httpx.Response:
        response: httpx.Response = getattr(self, vendor)(**fields)
        return response


def named(files: dict[str, bytes]) -> dict[str, tuple[str, bytes]]:
    return {name: (f"{name}.png", data) for name, data in files.items()}


@dataclass
class Callback:
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A server that keeps what is posted to it; `status` is what it answers."""

    url: str
    status: int = 200
    received: list[Callback] = field(default_factory=list)

    def wait(self, count: int, seconds: float = 5) -> list[Callback]:
        until = time.monotonic() + seconds
        while len(self.received) < count and time.monotonic() < until:
            time.sleep(0.01)
        assert len(self.received) >= count, f"{len(self.received)} of {count} callbacks came"
        return self.received


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.received.append(Callback(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(kept.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=lambda: server.serve_forever(0.01))
    thread.start()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def certificates() -> ssl.SSLContext:
    """Read once: it takes longer than most of these tests."""
    return ssl.create_default_context()


@pytest.fixture
def client(certificates: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5, trust_env=False, verify=certificates) as client:
        yield client


@pytest.fixture
def open_sandbox(client: httpx.Client) -> Iterator[Callable[..., Vendors]]:
    """Starts a sandbox with the settings given and returns its vendors."""
    opened: list[Sandbox] = []

    def start(**settings: Any) -> Vendors:
        sandbox = Sandbox(**{"image_size": 96} | settings)
        opened.append(sandbox.start())
        return Vendors(sandbox, client)

    yield start
    for sandbox in opened:
        sandbox.stop()


@pytest.fixture
def vendors(open_sandbox: Callable[..., Vendors]) -> Vendors:
    return open_sandbox()


@pytest.fixture
def make_picture() -> Callable[..., bytes]:
    return picture
