"""Reads one answer from its bytes, as they come: heads, body, end. It neither waits nor writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO

from . import leniencies
from .leniencies import Framing, Head, Leniency

#: the heads of an answer, those of interim answers (1xx) included, in bytes
MAX_HEAD_BYTES = 100 << 10
#: lines of one head
MAX_HEAD_LINES = 500
#: interim answers before the final one; a provider that shows progress sends one a second
MAX_INTERIM_ANSWERS = 1000
#: an answer in more pieces than this, and one more for each half kilobyte, is an attack, or broken
MAX_PIECES = 1 << 16
#: the line before a chunk, in bytes
_MAX_CHUNK_LINE_BYTES = 4096

_HEAD_END = re.compile(rb"\n\r?\n")
_NO_BODY = frozenset({204, 304})


class AnswerReader:
    """One answer. It is fed with bytes until it is done, and says whether its body can be trusted to be whole."""

    __slots__ = (
        *("allowed", "bodiless", "done", "doubt", "failure", "framing", "head", "pieces", "size", "surplus"),
        *("_body", "_consume", "_head_bytes", "_interim_answers", "_left", "_partial", "_searched", "_stopped_early"),
    )

    def __init__(self) -> None:
        #: the final head, once it is complete
        self.head: Head | None = None
        self.framing = Framing()
        #: whether no body follows, since the request is a HEAD
        self.bodiless = False
        #: the bytes of the body so far
        self.size = 0
        #: the size up to which the body may grow; raised by the caller, who reserves memory
        self.allowed = -1
        self.pieces = 0
        self.done = False
        #: why it is not an answer; then it is done
        self.failure: str | None = None
        #: why the body may not be whole
        self.doubt: Leniency | None = None
        #: bytes that came together with the end of the body, and after it
        self.surplus = b""
        self._body = BytesIO()
        self._consume: Callable[[bytes], None] = self._read_head
        self._head_bytes = 0
        self._interim_answers = 0
        #: the bytes of the body, or of the chunk, that are still to come
        self._left = 0
        #: the beginning of a head, or of the line before a chunk
        self._partial = b""
        #: how much of a partial head was searched for its end
        self._searched = 0
        #: whether it was done before the last byte of the message
        self._stopped_early = False

    @property
    def body(self) -> bytes:
        """The body as it came; it is not copied."""
        return self._body.getvalue()

    @property
    def has_news(self) -> bool:
        """Whether the caller has something to do: the answer is done, or more memory is to be reserved."""
        return self.done or (self.head is not None and self.size > self.allowed)

    @property
    def ends_cleanly(self) -> bool:
        """Whether another answer may follow on the same connection."""
        if self.head is None or not self.head.persistent or not self.framing.exact:
            return False
        in_doubt = self.failure or self.doubt or self.surplus or self._stopped_early
        return self.done and not in_doubt and (self.framing.chunked or self.framing.length is not None)

    def feed(self, data: bytes) -> None:
        """Read the next bytes. After the end they are ignored."""
        if self.done:
            self.surplus = self.surplus or data
            return
        self._count_piece()
        if not self.done:
            self._consume(data)

    def end(self, *, cleanly: bool) -> None:
        """The connection has ended: that is the end of a body without another one, unless it ended by an error."""
        if self.done:
            return
        if self.head is None:
            self._fail("it closed the connection before it answered")
        elif self.framing.chunked or self.framing.length is not None or not cleanly:
            self.doubt = self.doubt or leniencies.CUT
        self.done = True

    def _fail(self, reason: str) -> None:
        self.failure, self.done = reason, True

    def _count_piece(self) -> None:
        self.pieces += 1
        if self.pieces > MAX_PIECES + (self.size >> 9):
            self._fail(f"its answer comes in more than {MAX_PIECES} pieces")

    # --- heads ----------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        data = self._partial + data
        while not self.done and (match := _HEAD_END.search(data, self._searched)):
            raw, data, self._searched = data[: match.start()], data[match.end() :], 0
            self._head_bytes += match.end()
            if raw.strip():
                self._take_head(raw)
            if self.head is not None:
                self._partial = b""
                self._begin_body(self.head, data)
                return
        self._partial, self._searched = data, max(0, len(data) - 2)
        if self._head_bytes + len(data) > MAX_HEAD_BYTES:
            self._fail(f"the head of its answer has more than {MAX_HEAD_BYTES} bytes")
        elif not b"HTTP/".startswith(data[:64].lstrip(b"\r\n")[:5].upper()):
            self._fail("its answer is not HTTP")

    def _take_head(self, raw: bytes) -> None:
        head = leniencies.read_head(raw) if raw.count(b"\n") < MAX_HEAD_LINES else None
        if head is None:
            self._fail(f"its answer is not HTTP, or its head has more than {MAX_HEAD_LINES} lines")
        elif head.status >= 200:
            self.head = head
        else:
            self._interim_answers += 1
            if head.status == 101 or self._interim_answers > MAX_INTERIM_ANSWERS:
                self._fail("it sent interim answers instead of an answer")

    def _begin_body(self, head: Head, data: bytes) -> None:
        without = self.bodiless or head.status in _NO_BODY
        self.framing = Framing(length=0) if without else leniencies.framing(head.headers)
        self.doubt = head.doubt or self.framing.doubt
        if self.framing.chunked:
            self._consume = self._read_chunks
        elif self.framing.length is None:
            self._consume = self._read_to_the_end
        else:
            self._left, self._consume = self.framing.length, self._read_length
        self._consume(data)

    # --- bodies ---------------------------------------------------------------------------------------------------

    def _take(self, data: bytes | memoryview) -> None:
        self._body.write(data)
        self.size += len(data)

    def _read_length(self, data: bytes) -> None:
        if len(data) > self._left:
            data, self.surplus = data[: self._left], data[self._left :]
        self._take(data)
        self._left -= len(data)
        self.done = not self._left

    def _read_to_the_end(self, data: bytes) -> None:
        self._take(data)

    def _read_chunks(self, data: bytes) -> None:
        data, self._partial, at = self._partial + data, b"", 0
        while at < len(data) and not self.done:
            if self._left:
                chunk = memoryview(data)[at : at + self._left]
                self._take(chunk)
                self._left -= len(chunk)
                at += len(chunk)
                continue
            end = data.find(b"\n", at) + 1
            line = data[at : end or None]
            if not end and _may_begin_chunk(line):
                self._partial = line
                return
            at += len(line)
            self._count_piece()
            # An empty line is the end of the chunk before.
            if line.strip() and not self._begin_chunk(line, data, at):
                return

    def _begin_chunk(self, line: bytes, data: bytes, at: int) -> bool:
        """Read the line before a chunk, which ends at `at`; returns whether a chunk follows."""
        size = leniencies.chunk_size(line.strip()) if line.endswith(b"\n") else None
        if size:
            self._left = size
            return True
        if size == 0:  # the trailer says nothing that is needed
            rest = data[at:]
            self.surplus, self._stopped_early = rest.lstrip(b"\r\n"), rest not in {b"\r\n", b"\n"}
            self.done = True
        elif self.size:
            self.doubt, self.done = leniencies.BAD_CHUNK, True
        else:
            self.doubt, self.framing = leniencies.NOT_CHUNKED, Framing()
            self._consume = self._read_to_the_end
            self._take(data[at - len(line) :])
        return False


def _may_begin_chunk(line: bytes) -> bool:
    """Whether a line without its end can still become one that begins a chunk."""
    text = line.strip()
    return len(line) <= _MAX_CHUNK_LINE_BYTES and (not text or leniencies.chunk_size(text) is not None)
