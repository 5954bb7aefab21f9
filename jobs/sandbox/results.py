"""The file hosts: where results live for a while, under URLs that must come back byte for byte.

A signed URL has the form of an Azure SAS (`st`, `se`, `sp`, `sv`, `sr`, `sig`), with `%3A` and `%3D` in it; one that
was re-encoded on the way, came too early or too late, is answered 403 as Azure does.
"""

import asyncio
import base64
import hashlib
import hmac
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, quote

from .faults import Fault
from .images import as_png, bomb
from .ledger import Serving, Submission, digest_of
from .wire import Answer, Drop, Endless, Reply, Request
from .world import World

#: Signs result URLs; the same in every process, and not a secret.
_SIGNING_KEY = b"darkroom sandbox"
_HTML = b"<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class FileHost:
    """How one vendor publishes its result files."""

    #: First folders of the path.
    folder: str
    extension: str
    #: Life of a URL, unless the sandbox has another. Seconds.
    life_seconds: float
    #: Whether its URLs are signed; one that is not, lives from the time the work was done.
    signed: bool


class Results:
    """Makes result URLs and answers requests for them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def url(self, submission: Submission, index: int, file_host: FileHost) -> str:
        """A fresh URL for one image of a submission."""
        path = f"/files/{submission.vendor}/{file_host.folder}/{submission.file_name(index, file_host.extension)}"
        if not file_host.signed:
            return submission.base_url + path
        now, life = self._world.now(submission.vendor), self._life(file_host)
        # Azure writes whole seconds; the life of a few that a test sets needs finer ones.
        precision = "seconds" if life >= 60 else "milliseconds"
        start, end = (moment.isoformat(timespec=precision) for moment in (now, now + timedelta(seconds=life)))
        return f"{submission.base_url}{path}?{_signed(path, start, end)}"

    async def serve(self, request: Request, host_of: Callable[[Submission], FileHost]) -> Reply:
        """Answer a request under /files/."""
        if request.method not in {"GET", "HEAD"}:
            return _xml(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")
        stem = request.path.rpartition("/")[2].rpartition(".")[0]
        found = self._world.ledger.by_image(stem)
        if not found:
            return _xml(404, "BlobNotFound", "The specified blob does not exist.")
        submission, index = found
        if denied := self._refusal(request, submission, host_of(submission)):
            self._enter(submission, index, denied, genuine=False)
            return denied
        return await self._file(request, submission, index)

    def _life(self, file_host: FileHost) -> float:
        chosen = self._world.settings.result_life_seconds
        return file_host.life_seconds if chosen is None else chosen

    def _refusal(self, request: Request, submission: Submission, file_host: FileHost) -> Answer | None:
        now = datetime.now(UTC)
        if self._world.faults.take(submission.vendor, "result-expired"):
            return _authentication_failed(f"Signature not valid in the specified time frame: Current [{_gmt(now)}]")
        if file_host.signed:
            return _signature_fault(request, now)
        if time.time() > submission.ready_at + self._life(file_host):
            return _xml(403, "AccessDenied", "Request has expired")
        return None

    async def _file(self, request: Request, submission: Submission, index: int) -> Reply:
        faults = self._world.faults
        if slow := faults.take(submission.vendor, "result-slow"):
            await asyncio.sleep(slow.number)
        if fault := faults.take(submission.vendor, "result-redirect"):
            return Answer(302, headers={"location": fault.value})
        if b"bounced" not in request.target and faults.take(submission.vendor, "result-bounce"):
            target = request.target.decode("ascii", "replace")
            return Answer(307, headers={"location": f"{target}{'&' if '?' in target else '?'}bounced"})
        if fault := faults.take(submission.vendor, *_TROUBLES):
            content = await asyncio.to_thread(submission.image, index)
            reply = _TROUBLES[fault.kind.name](content, fault)
            if isinstance(reply, Answer):
                self._enter(submission, index, reply, genuine=False)
            return reply
        # Drawing takes milliseconds when the image is not cached; other calls must not wait for it.
        content = await asyncio.to_thread(submission.image, index)
        answer = _image(content)
        self._enter(submission, index, answer, genuine=True)
        return answer

    def inline(self, submission: Submission, index: int) -> bytes:
        """The bytes of an image that is sent inside an answer, faults included."""
        fault = self._world.faults.take(submission.vendor, *_INLINE_TROUBLES)
        content = submission.image(index)
        if fault:
            reply = _TROUBLES[fault.kind.name](content, fault)
            assert isinstance(reply, Answer)
            content = reply.body[: reply.sent]
        self._enter(submission, index, Answer(200, content), genuine=not fault, inline=True)
        return content

    def _enter(self, one: Submission, index: int, answer: Answer, *, genuine: bool, inline: bool = False) -> None:
        size, digest = len(answer.body), digest_of(answer.body)
        self._world.ledger.record_serving(Serving(one.task_id, index, answer.status, size, digest, genuine, inline))


def _signed(path: str, start: str, end: str) -> str:
    """The query of a signed URL, as it must come back."""
    start, end = (quote(moment.replace("+00:00", "Z"), safe="") for moment in (start, end))
    claims = f"st={start}&se={end}&sp=r&sv=2024-05-04&sr=b"
    digest = hmac.digest(_SIGNING_KEY, f"{path}?{claims}".encode(), hashlib.sha256)
    return f"{claims}&sig={quote(base64.b64encode(digest), safe='')}"


def _signature_fault(request: Request, now: datetime) -> Answer | None:
    path, _, query = request.target.removesuffix(b"&bounced").decode("ascii", "replace").partition("?")
    try:
        fields = parse_qs(query)
        stated_start, stated_end = (fields[name][0] for name in ("st", "se"))
        start, end = datetime.fromisoformat(stated_start), datetime.fromisoformat(stated_end)
    except (KeyError, ValueError):
        return _authentication_failed("Signature fields not well formed.")
    if query != _signed(path, stated_start, stated_end):
        return _authentication_failed("Signature did not match.")
    if not start <= now <= end:
        frame = f"Start [{_gmt(start)}] - Expiry [{_gmt(end)}] - Current [{_gmt(now)}]"
        return _authentication_failed(f"Signature not valid in the specified time frame: {frame}")
    return None


def _gmt(moment: datetime) -> str:
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def _authentication_failed(detail: str) -> Answer:
    sentence = (
        "Server failed to authenticate the request. "
        "Make sure the value of Authorization header is formed correctly including the signature."
    )
    message = f"{sentence}\nRequestId:{uuid.uuid4()}\nTime:{datetime.now(UTC).isoformat()}"
    return _xml(
        403, "AuthenticationFailed", message, f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>"
    )


def _xml(status: int, code: str, message: str, more: str = "") -> Answer:
    # Azure's error bodies begin with a byte order mark.
    text = f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'
    return Answer(status, text.encode(), {"content-type": "application/xml", "x-ms-error-code": code})


def _image(data: bytes, sent: int | None = None) -> Answer:
    kind = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
    return Answer(200, data, {"content-type": kind}, sent=sent)


#: Faults of a result file, by name.
_TROUBLES: dict[str, Callable[[bytes, Fault], Reply]] = {
    "result-404": lambda _content, _fault: _xml(404, "BlobNotFound", "The specified blob does not exist."),
    "result-500": lambda _content, _fault: _xml(500, "InternalError", "The server encountered an internal error."),
    "result-truncated": lambda content, _fault: _image(content, sent=len(content) // 2),
    "result-drop": lambda _content, _fault: Drop(),
    "result-not-image": lambda _content, _fault: Answer(200, _HTML, {"content-type": "image/jpeg"}),
    "result-empty": lambda _content, _fault: Answer(200, b"", {"content-type": "image/jpeg"}),
    "result-huge": lambda content, fault: _image(content.ljust(len(content) + int(fault.number * 1_000_000), b"\0")),
    "result-endless": lambda content, _fault: Endless(content, {"content-type": "image/jpeg"}),
    "result-bomb": lambda _content, _fault: _image(bomb()),
    "result-png": lambda content, _fault: Answer(200, as_png(content), {"content-type": "image/jpeg"}),
}
#: Those of them that an image inside an answer can have too.
_INLINE_TROUBLES = ("result-truncated", "result-not-image", "result-empty", "result-huge", "result-bomb", "result-png")
