"""Why an exchange brought no answer, cut by what is known about the request.

    TransportError
     +- NotSent               surely nothing reached the other side: sending again is safe
     |   +- ForbiddenAddress  and nothing ever will: the URL leads to a forbidden address
     +- OutcomeUnknown        the request may have been read and acted on
         +- CutShort          the answer began, and ended too early
         +- TooLarge          the answer is larger than the caller accepts
         +- TooManyRedirects

No message holds a path, a query or a header, since those carry signatures and keys.
"""

from __future__ import annotations

from jobs.providers._contract import Response


class TransportError(Exception):
    """The exchange brought no answer. `host` and `reason` are safe to log."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


class NotSent(TransportError):
    """Surely nothing reached the other side: no address, refused, no connection in time, TLS refused."""


class ForbiddenAddress(NotSent):
    """The URL is not a valid http(s) URL, uses plain http where that is not allowed, or leads to a forbidden address."""


class OutcomeUnknown(TransportError):
    """The request may have been read: timeout, reset, early close, an incomplete or unreadable answer."""


class CutShort(OutcomeUnknown):
    """The answer may be incomplete: fewer bytes than its Content-Length, no last chunk, or no telling where it ends.

    `response` is what came of it: whoever knows what the body should be can tell whether it is whole.
    """

    def __init__(self, host: str, reason: str, response: Response) -> None:
        super().__init__(host, reason)
        self.response = response


class TooLarge(OutcomeUnknown):
    """The answer is larger than `max_bytes`, and no more of it was read. Its `status` is known."""

    def __init__(self, host: str, reason: str, status: int) -> None:
        super().__init__(host, reason)
        self.status = status


class TooManyRedirects(OutcomeUnknown):
    """The download was redirected more than `max_redirects` times."""


def os_reason(error: Exception) -> str:
    """The operating system's message, which names no more than an address."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
