"""What goes out: a URL's bytes as they came, and a head that HTTP allows, or nothing."""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import quote

from jobs.address_guard import URL

from .errors import ForbiddenAddress, NotSent

#: headers that a caller may replace, by their names in lower case
_DEFAULTS = {
    "user-agent": f"User-Agent: darkroom/{version('darkroom')}",
    "accept-encoding": "Accept-Encoding: identity",
}
#: headers that are set here, whatever the caller says
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: characters that a request line holds as they are; all others (spaces, non-ASCII) are escaped
_TARGET_SAFE = string.punctuation
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. `target` is the one of its request line, byte for byte as in the URL."""

    scheme: str
    host: str
    port: int
    authority: str
    target: str = field(repr=False)

    @classmethod
    def parsed(cls, url: str) -> Target:
        """The target of a URL. Raises ForbiddenAddress for anything that is not an http(s) URL with a plain host."""
        match = URL.fullmatch(url)
        if match is None:
            raise ForbiddenAddress("?", "not an http(s) URL with a plain host")
        scheme, host = match["scheme"].lower(), match["host"].lower()
        port = int(match["port"] or _DEFAULT_PORTS[scheme])
        if not 0 < port < 65536:
            raise ForbiddenAddress(host, f"{port} is not a valid port")
        authority = host if port == _DEFAULT_PORTS[scheme] else f"{host}:{port}"
        target = match["target"] or "/"
        try:
            target = quote(target if target.startswith("/") else f"/{target}", safe=_TARGET_SAFE)
        except UnicodeError:
            raise ForbiddenAddress(host, "the URL has characters that cannot be encoded") from None
        return cls(scheme, host.strip("[]"), port, authority, target)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it is written."""

    method: str
    target: Target
    head: bytes = field(repr=False)
    #: the parts of the body; not joined, so that no file is copied
    body: Sequence[bytes] = field(repr=False)
    #: whether the other side may keep the connection open, and an idle one may be used
    reuses: bool = False
    #: whether the body of a redirect is left unread
    follows: bool = False

    @classmethod
    def of(
        cls,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        body: Sequence[bytes],
        *,
        reuses: bool = False,
        follows: bool = False,
    ) -> Request:
        """Write the head; host, length and connection follow from the request. Raises NotSent for a header that HTTP forbids."""
        if not _TOKEN.fullmatch(method):
            raise NotSent(target.host, "HTTP does not allow this method")
        lines = {"": f"{method} {target.target} HTTP/1.1", "host": f"Host: {target.authority}", **_DEFAULTS}
        for name, value in headers.items():
            lowered = _checked_name(name)
            if lowered is None or not _is_value(value):
                # The message does not quote it: it may be a key.
                raise NotSent(target.host, "the request holds a header that HTTP does not allow")
            if lowered not in _OURS:
                lines[lowered] = f"{name}: {value}"
        if not reuses:
            lines["connection"] = "Connection: close"
        if body or method not in {"GET", "HEAD"}:
            lines["content-length"] = f"Content-Length: {sum(map(len, body))}"
        head = "\r\n".join(lines.values()) + "\r\n\r\n"
        return cls(method, target, head.encode("latin-1"), body, reuses, follows)


@functools.lru_cache(256)
def _checked_name(name: str) -> str | None:
    """The name of a header in lower case; None if HTTP does not allow it."""
    return name.lower() if _TOKEN.fullmatch(name) else None


def _is_value(value: str) -> bool:
    """Whether HTTP allows this as the value of a header."""
    plain = value.isascii() and value.isprintable()
    return (plain or _VALUE.fullmatch(value) is not None) and value == value.strip(" \t")
