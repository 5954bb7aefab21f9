"""The vocabulary of faults, and which of them are armed.

A fault is armed by a specification: `name[=value][%chance][@vendor][*times]`. Without a vendor it applies to all that
have it, without times it stays until it is cleared, without a chance (percent) it applies every time::

    drop@deepmode*1          the next DeepMode submission is charged and its connection closed without an answer
    429-retry-after=3*2      the next two submissions anywhere are asked to come back in three seconds
    latency=8%10             one call in ten takes eight seconds
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

#: The vendors that the sandbox plays; each lives under a path of this name.
VENDORS = ("deepmode", "chainhub", "phota", "aimlapi")
_SPECIFICATION = re.compile(
    r"(?P<name>[\w-]+)(=(?P<value>.+?))?(%(?P<chance>[\d.]+))?(@(?P<vendor>\w+))?(\*(?P<times>\d+))?"
)


class UnknownFault(ValueError):
    """A specification of an unknown fault, or with a wrong value; the message lists the known ones."""


@dataclass(frozen=True)
class Kind:
    """One word of the vocabulary."""

    name: str
    help: str
    #: The value when the specification gives none; its type is the value's type; None takes no value.
    default: float | str | None = None
    #: The vendors that have it.
    vendors: tuple[str, ...] = VENDORS


@dataclass(frozen=True)
class Fault:
    """An armed fault."""

    kind: Kind
    value: str
    vendor: str | None
    #: Percent of the occasions that it meets.
    chance: float = 100.0
    #: How often it will still strike; None is without end.
    left: int | None = None
    struck: int = 0

    @property
    def number(self) -> float:
        """The value as a number: seconds, unless the fault says otherwise."""
        return float(self.value)

    def view(self) -> dict[str, Any]:
        shown = ("value", "vendor", "chance", "left", "struck")
        return {"name": self.kind.name, **{name: getattr(self, name) for name in shown}}


def _kinds(*rows: tuple[str, str] | tuple[str, str, float | str], vendors: Iterable[str] = VENDORS) -> list[Kind]:
    return [Kind(row[0], row[1], row[2] if len(row) == 3 else None, tuple(vendors)) for row in rows]


#: Refused before any work is done: nothing is charged.
REFUSALS = ("400", "401", "402", "403", "429", "429-retry-after", "500", "502", "503")
#: The work is done and charged (unless the vendor refunds it), and the answer is lost or broken.
LOSSES = ("hang", "drop", "reset", "truncated", "not-json", "500-late", "504")
#: Faults of a status request; the same names as for a submission, after `poll-`.
POLL_TROUBLES = ("404", "429", "500", "503", "drop", "hang", "truncated", "not-json")

VOCABULARY: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *_kinds(
            ("latency", "the work takes this many seconds, instead of --latency", 1.0),
            ("400", "refused as invalid, in the vendor's shape"),
            ("401", "refused: wrong key"),
            ("402", "refused: insufficient credit"),
            ("403", "refused: forbidden (AIML: out of credit)"),
            ("429", "refused: too many requests, without Retry-After"),
            ("429-retry-after", "refused: too many requests, with Retry-After in seconds", 1.0),
            ("500", "fails before any work"),
            ("502", "bad gateway before any work"),
            ("503", "unavailable before any work"),
            ("refuse", "the connection is closed before any work; nothing is charged"),
            ("hang", "charged, then no answer: forever (0) or for this many seconds", 0.0),
            ("drop", "charged, then the connection is closed without an answer"),
            ("reset", "as drop, with a TCP reset"),
            ("truncated", "charged; the body ends before its Content-Length"),
            ("not-json", "charged; the body is a proxy's HTML page"),
            ("500-late", "500 after the work; charged unless the vendor never charges for a failure"),
            ("504", "504 after the work; refunded by Phota, never charged by AIML"),
            ("fewer", "this many images fewer than requested, but at least one", 1.0),
            ("clock-skew", "the API's clock is this many seconds ahead; its signed URLs are not valid yet", 3.0),
            ("result-expired", "the result URL answers 403, as if it had expired"),
            ("result-404", "the result URL answers 404"),
            ("result-500", "the result URL answers 500"),
            ("result-slow", "the result URL answers after this many seconds", 1.0),
            ("result-truncated", "the result ends before its Content-Length"),
            ("result-drop", "the result URL closes the connection without an answer"),
            ("result-not-image", "the result is an HTML page with an image's Content-Type"),
            ("result-empty", "the result is a 200 with an empty body"),
            ("result-huge", "the result is an image followed by this many MB of zeros", 64.0),
            ("result-endless", "the result has no Content-Length and never ends"),
            ("result-bomb", "the result is a small PNG of 20,000 by 20,000 pixels"),
            ("result-png", "the result is a PNG with another name and Content-Type"),
            ("result-redirect", "the result URL redirects to this one", "http://169.254.169.254/latest/meta-data/"),
            ("result-bounce", "the result URL redirects to itself before it serves the image"),
        ),
        *_kinds(
            *((f"poll-{name}", f"a poll fails: {name}") for name in POLL_TROUBLES if name != "hang"),
            ("poll-hang", "a poll is not answered: forever (0) or for this many seconds", 0.0),
            vendors=("deepmode", "chainhub", "phota"),
        ),
        *_kinds(
            ("callback-late", "callbacks arrive this many seconds late", 1.0),
            ("callback-never", "callbacks never arrive"),
            ("callback-twice", "callbacks arrive twice"),
            ("callback-first", "the callback arrives before the submission is answered"),
            ("callback-not-json", "callbacks are not JSON"),
            ("callback-garbage", "callbacks are JSON of another shape"),
            ("callback-bad-signature", "callbacks are signed with the wrong key"),
            ("callback-retries", "a callback that is not answered 2xx is sent again, at most this many times", 3.0),
            vendors=("deepmode", "chainhub", "phota"),
        ),
        *_kinds(
            ("callback-flat", "the callback is one flat image, not wrapped in `images`"),
            vendors=("deepmode",),
        ),
        *_kinds(
            ("sync-body", "answers with the finished images at once, as similar gateways do"),
            ("no-data", "this many polls answer without `data`", 1.0),
            ("code", "HTTP 200 whose body carries this code (1303: rate limit, 1301: content policy)", "1303"),
            ("code-429", "HTTP 429 whose body carries this code (1101, 1102, 1304 are final)", "1101"),
            ("string-code", "400 whose code is a string, `task_not_exist`"),
            ("fetch-failed", "500 `fail_to_fetch_task` whose message is the upstream error as a JSON string"),
            ("upstream-saturated", "403 with the nested code `upstream_load_saturated`"),
            ("user-quota", "403 with the nested code `insufficient_user_quota`"),
            ("error-object", "HTTP 200 with a top-level `error` object"),
            ("task-failed", "the task ends as `failed` with this message", "upstream error"),
            ("unsafe", "the image with this index is marked is_image_safe:false and has no URL", 0.0),
            ("empty-url", "the image with this index has an empty URL", 0.0),
            ("unknown-status", "the task has an undocumented status until it is done", "reviewing"),
            ("other-words", "statuses as other gateways name them: queued, in_progress, completed, error"),
            ("updates-flat", "updates hold only the inner object, without the envelope"),
            ("updates-shuffled", "updates arrive in reverse order"),
            ("updates-repeated", "every update arrives three times"),
            vendors=("chainhub",),
        ),
        *_kinds(
            ("moderated", "400: the input was refused by moderation"),
            ("images-as-urls", "`images` contains the URLs, `download_urls` is missing"),
            ("job-failed", "the asynchronous job fails and is refunded"),
            vendors=("phota",),
        ),
        *_kinds(
            ("credits-used", "usage is given as `credits_used`"),
            ("no-meta", "`meta` is null"),
            ("no-usage", "`meta.usage` is null"),
            ("data-null", "HTTP 200 with `data: null`"),
            ("data-empty", "HTTP 200 with an empty `data`"),
            ("violation", "HTTP 200 with `content_violation: true`"),
            ("partner-rate-limit", "500 with PARTNER_API_TOKEN_RATE_LIMIT_EXCEEDED"),
            ("api-key-500", "500 with a message about the API key"),
            ("created", "a successful answer has the status 201"),
            vendors=("aimlapi",),
        ),
    )
}


def parse(specification: str) -> Fault:
    """Read `name[=value][%chance][@vendor][*times]`; raises `UnknownFault` with the known names."""
    match = _SPECIFICATION.fullmatch(specification.strip())
    kind = VOCABULARY.get(match["name"]) if match else None
    if match is None or kind is None:
        raise UnknownFault(f"unknown fault {specification!r}; known faults: {', '.join(sorted(VOCABULARY))}")
    vendor = match["vendor"]
    if vendor is not None and vendor not in kind.vendors:
        raise UnknownFault(f"fault {kind.name} does not exist for {vendor!r}; it exists for {', '.join(kind.vendors)}")
    if kind.default is None and match["value"] is not None:
        raise UnknownFault(f"fault {kind.name} takes no value, but was given {match['value']!r}")
    value = str(kind.default if match["value"] is None else match["value"])
    if isinstance(kind.default, float):
        try:
            float(value)
        except ValueError:
            raise UnknownFault(f"fault {kind.name} takes a number, not {value!r}: {kind.help}") from None
    left = None if match["times"] is None else int(match["times"])
    return Fault(kind, value, vendor, float(match["chance"] or 100), left)


@dataclass
class Faults:
    """The faults that are armed, in the order of their arming."""

    seed: int = 0
    _armed: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def arm(self, specification: str) -> None:
        self._armed.append(parse(specification))

    def clear(self, name: str | None = None) -> None:
        self._armed = [fault for fault in self._armed if name is not None and fault.kind.name != name]

    def take(self, vendor: str, *names: str) -> Fault | None:
        """The first armed fault of these names that strikes this vendor now; it is counted."""
        for place, fault in enumerate(self._armed):
            if self._meets(fault, vendor, names) and self._random.uniform(0, 100) < fault.chance:
                left = None if fault.left is None else fault.left - 1
                self._armed[place] = replace(fault, left=left, struck=fault.struck + 1)
                return fault
        return None

    def standing(self, vendor: str, name: str) -> Fault | None:
        """An armed fault that is a condition rather than an event; it is not counted."""
        return next((fault for fault in self._armed if self._meets(fault, vendor, (name,))), None)

    def take_all(self, vendor: str, *names: str) -> dict[str, str]:
        """Each of these names that strikes now, with its value."""
        return {name: fault.value for name in names if (fault := self.take(vendor, name))}

    def view(self) -> list[dict[str, Any]]:
        return [fault.view() for fault in self._armed]

    @staticmethod
    def _meets(fault: Fault, vendor: str, names: Iterable[str]) -> bool:
        met = fault.kind.name in names and fault.left != 0
        return met and fault.vendor in {None, vendor} and vendor in fault.kind.vendors
