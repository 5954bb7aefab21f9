"""A hostile provider or producer cannot have a real worker fetch what it must not, and the jobs say why."""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from jobs import Code, Job, Status
from jobs.providers import aimlapi, deepmode

pytestmark = pytest.mark.journey

MAX_BYTES = 100_000


@dataclass
class Web:
    """A web server whose pages a test sets, and the paths that were requested."""

    host: str
    port: int = 0
    pages: dict[str, tuple[int, Mapping[str, str], bytes]] = field(default_factory=dict)
    connections: int = 0

    def url(self, path: str, host: str = "", scheme: str = "http") -> str:
        return f"{scheme}://{host or self.host}:{self.port}{path}"

    def page(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        """Set a page, and return its URL."""
        self.pages[path] = (status, {"Content-Length": str(len(body)), **headers}, body)
        return self.url(path)


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(*web.pages.get(self.path, (404, {}, b"")))

        def do_POST(self) -> None:
            """A provider that answers with the prompt."""
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"data": [json.loads(asked["prompt"])], "meta": {"usage": {"tokens_used": 1}}}).encode()
            self._answer(200, {"Content-Length": str(len(body))}, body)

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            web.connections += 1
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer((web.host, 0), Handler)
    server.daemon_threads = True
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def vendor() -> Iterator[Web]:
    """A provider at an address that the operator has allowed, and its images."""
    with serving(Web("127.0.0.1")) as web:
        yield web


@pytest.fixture
def private() -> Iterator[Web]:
    """A server at an address that the operator has not allowed; it counts requests."""
    with serving(Web("127.0.0.2")) as web:
        web.page("/secret", a_picture())
        yield web
        assert web.connections == 0, "somebody got in"


def a_picture(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def site(sites: Any, bucket: Any, vendor: Web) -> Any:
    """A site with a provider that chooses what it fetches."""
    given = {
        "AIMLAPI_BASE_URL": vendor.url(""),
        "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.1/32",
        "DARKROOM_MAX_IMAGE_BYTES": str(MAX_BYTES),
        "DARKROOM_WEBHOOK_SECRETS": "whsec_bmV3IHNlY3JldCBuZXcgc2VjcmV0IG5ldyBzZWNyZXQ=",
    }
    site = sites.new("guarded", given, storage=bucket.storage())
    site.await_workers(site.start_worker())
    return site


def offering(item: Mapping[str, Any], **fields: Any) -> aimlapi.ReveRemix:
    """A request to which the provider answers with this image."""
    return aimlapi.ReveRemix(image_urls=["https://example.com/a.png"], prompt=json.dumps(item), **fields)


def ended(site: Any, item: Mapping[str, Any]) -> Job:
    """The job after the provider offered this image."""
    return site.wait(site.darkroom.enqueue(offering(item)))  # type: ignore[no-any-return]


def is_rejected(job: Job, why: str) -> None:
    assert (job.status, job.artifacts) == (Status.FAILED, ())
    assert job.error is not None
    assert job.error.code is Code.RESULT_REJECTED
    assert why in job.error.message
    assert "canary" not in job.error.message


def test_a_result_from_an_allowed_address_is_stored(site: Any, vendor: Web) -> None:
    job = ended(site, {"url": vendor.page("/good.png?sig=canary", a_picture())})
    assert job.status is Status.SUCCEEDED, job.error


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2",
        "2130706434",
        "017700000002",
        "0177.0.0.2",
        "0x7f000002",
        "127.2",
        "[::ffff:127.0.0.2]",
        "[::ffff:7f00:2]",
    ],
)
def test_a_result_at_a_private_address_is_not_fetched_however_it_is_spelled(site: Any, private: Web, host: str) -> None:
    for scheme in ("http", "https"):
        is_rejected(ended(site, {"url": private.url("/secret?sig=canary", host, scheme)}), "loopback address")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("https://[fd00:ec2::254]/latest", "private"),
        ("https://100.100.100.200/latest", "carrier-grade NAT"),
        ("https://[64:ff9b::a9fe:a9fe]/", "link-local"),
        ("http://93.184.215.14/a.png", "plain http"),
        ("https://user:canary@example.com/a.png", "not an http(s) URL with a plain host"),
    ],
)
def test_a_result_at_a_special_address_or_by_plain_http_is_not_fetched(site: Any, url: str, why: str) -> None:
    is_rejected(ended(site, {"url": url}), why)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_private_address_is_not_followed(site: Any, vendor: Web, private: Web, status: int) -> None:
    moved = vendor.page(f"/moved-{status}", b"", status, Location=private.url("/secret"))
    is_rejected(ended(site, {"url": moved}), "loopback address")


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "https://[", "gopher://127.0.0.2/"])
def test_a_redirect_to_something_that_is_not_a_web_address_is_not_followed(site: Any, vendor: Web, to: str) -> None:
    is_rejected(ended(site, {"url": vendor.page("/odd", b"", 302, Location=to)}), "no")


def test_an_endless_redirect_is_given_up(site: Any, vendor: Web) -> None:
    is_rejected(ended(site, {"url": vendor.page("/loop", b"", 302, Location="/loop")}), "redirected more than 3 times")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb() -> bytes:
    """A PNG of 100,000 x 100,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(50_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HOSTILE = {
    "oversize": (a_picture() + bytes(MAX_BYTES), "bytes"),
    "bomb": (bomb(), "100000 x 100000 pixels"),
    "polyglot": (a_picture("JPEG") + b"PK\x03\x04" + b"a page inside a picture" * 10, "follow"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_image_is_rejected_by_url_and_inside_the_answer(site: Any, vendor: Web, kind: str) -> None:
    content, why = HOSTILE[kind]
    is_rejected(ended(site, {"url": vendor.page(f"/{kind}", content)}), why)
    if len(content) < 1500:
        is_rejected(ended(site, {"b64_json": base64.b64encode(content).decode()}), why)


@pytest.mark.parametrize("content", [SVG, b"<!doctype html><script>alert(1)</script>", b"%PDF-1.7 canary"])
def test_bytes_that_are_not_an_image_are_rejected(site: Any, content: bytes) -> None:
    is_rejected(ended(site, {"b64_json": base64.b64encode(content).decode()}), "expected JPEG, PNG, WebP or GIF")


def test_a_body_that_decompresses_without_end_is_rejected(site: Any, vendor: Web) -> None:
    squeezed = zlib.compress(bytes(50_000_000))
    url = vendor.page("/inflates", squeezed, **{"Content-Encoding": "deflate"})
    is_rejected(ended(site, {"url": url}), "decompresses to more than")


# Inputs that a producer names


def face(url: str) -> deepmode.FaceIdRemix:
    return deepmode.FaceIdRemix(identity_image=url, artwork_image=url, mask_image=url, prompt="an input")


@pytest.mark.parametrize("host", ["127.0.0.2", "2130706434", "0177.0.0.2", "[::ffff:7f00:2]"])
def test_an_input_at_a_private_address_is_not_fetched_and_nothing_is_submitted(
    site: Any, private: Web, vendors: Any, host: str
) -> None:
    job = site.wait(site.darkroom.enqueue(face(private.url("/secret?sig=canary", host))))
    assert (job.status, job.error.code, job.attempts) == (Status.FAILED, Code.INVALID_REQUEST, ())
    assert "identity_image" in job.error.message
    assert "loopback address" in job.error.message
    assert "canary" not in job.error.message


def test_an_input_that_redirects_to_a_private_address_is_not_fetched(site: Any, vendor: Web, private: Web) -> None:
    moved = vendor.page("/input-moved", b"", 302, Location=private.url("/secret"))
    job = site.wait(site.darkroom.enqueue(face(moved)))
    assert (job.status, job.error.code, job.attempts) == (Status.FAILED, Code.INVALID_REQUEST, ())


@pytest.mark.parametrize("content", [SVG, bomb(), a_picture() + bytes(21 << 20)], ids=["svg", "bomb", "oversize"])
def test_an_input_that_is_not_a_valid_image_is_never_submitted(site: Any, vendor: Web, content: bytes) -> None:
    job = site.wait(site.darkroom.enqueue(face(vendor.page("/input", content))))
    assert (job.status, job.error.code, job.attempts) == (Status.FAILED, Code.INVALID_REQUEST, ())


# Webhooks


@pytest.mark.parametrize("host", ["127.0.0.2", "2130706434", "[::ffff:7f00:2]", "169.254.169.254"])
def test_no_webhook_is_sent_to_a_private_address(site: Any, private: Web, wait_until: Any, host: str) -> None:
    url = private.url("/hook?token=canary", host)
    job = site.darkroom.enqueue(deepmode.Generate(model_id="m", prompt="p"), webhook_url=url)
    site.darkroom.cancel(job.id)
    wait_until(lambda: site.darkroom.get(job.id).deliveries[0].log, "a try")
    (delivery,) = site.darkroom.get(job.id).deliveries
    assert any(word in delivery.log[0].problem for word in ("loopback", "link-local"))
    assert "canary" not in repr(delivery)
