"""The contract between Darkroom and a provider: a pure translation, both directions, no I/O.

A provider file holds request models, one `Operation` for each, and one `Provider`. It turns a request into a `Call`,
and a `Response` or a callback body into a `Report`. Whatever the rest of the house must know of it (can a result still
come by callback? is there an idempotency key?) stands in `Abilities`, as data.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from ..errors import InvalidCallback
from ..report import Charged, Code, Cost, Failed, Image, Report
from . import _parsing as parsing
from . import _redaction as redaction

if TYPE_CHECKING:
    from ..request import Request


@dataclass(frozen=True)
class FilePart:
    """One file of a multipart form."""

    #: the form field
    name: str
    filename: str
    content: bytes = field(repr=False)
    content_type: str


@dataclass(frozen=True)
class Call:
    """One HTTP exchange to be performed: `path` is below the provider's base URL and goes out byte-exact.

    At most one of `json` and (`form`, `files`) is set; with `files` the form is sent as multipart.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    files: Sequence[FilePart] = ()
    #: how long the whole exchange may take
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class Response:
    """What came back: header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        """A 2xx: the vendor says that it did something, though the body may still say otherwise."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is none."""
        return parsing.parsed(self.body)

    def document(self) -> Any:
        """The body as JSON, or None when it is none."""
        try:
            return self.json()
        except ValueError:
            return None


@dataclass(frozen=True)
class InputImage:
    """An input image with its bytes, as a worker hands it to a provider."""

    content: bytes = field(repr=False)
    content_type: str
    #: ends in the extension that its content has
    filename: str

    def base64(self) -> str:
        """The bytes as plain base64."""
        return base64.b64encode(self.content).decode("ascii")


@dataclass(frozen=True)
class Abilities:
    """What a provider can do for one attempt: retry and rescue follow from this, never from a vendor's name."""

    #: the same submit under the same attempt key is answered with the first job and not charged again
    idempotent: bool = False
    #: the result comes by callback, even when nobody saw the answer to the submit
    callback: bool = False
    #: an attempt can be asked for by our own key, without the vendor's id
    lookup: bool = False
    #: a running attempt can be asked for by the vendor's id
    poll: bool = False
    #: the answer to the submit can hold the images themselves
    inline_images: bool = False


@dataclass(frozen=True)
class Context:
    """What a submit needs besides the request."""

    #: our name for the attempt, the same whenever the same attempt is sent again
    attempt_key: str
    #: where the vendor reaches us for this attempt, or None without a public URL; a secret
    callback_url: str | None = field(default=None, repr=False)
    api_key: str = field(default="", repr=False)
    #: input images by their reference in the request, for those that the provider wants as bytes
    inputs: Mapping[str, InputImage] = field(default_factory=dict)
    #: the provider's `Options`, already checked
    options: Any = None


class ProviderOptions(BaseModel):
    """The root of all `Options`: each field is `<NAME>_<FIELD>` in the environment; an empty variable is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Operation(Protocol):
    """One service of a provider, bound to its request model."""

    #: for example `deepmode.generate`
    name: str
    request: type[Request]
    #: from enqueue to the end of waiting, unless the job says otherwise
    deadline_seconds: float

    def abilities(self, request: Any, *, has_callback: bool, options: Any) -> Abilities:
        """What this attempt will be able to do; `has_callback` is False without a public URL."""
        ...

    def images_expected(self, request: Any) -> int:
        """How many images the request asks for."""
        ...

    def price(self, request: Any) -> Cost | None:
        """What the request is expected to cost, or None when nobody knows."""
        ...

    def submit(self, request: Any, context: Context) -> Call:
        """The call that costs money."""
        ...

    def read_answer(self, request: Any, response: Response) -> Report:
        """What the answer to the submit means. Never raises for any bytes a vendor may send."""
        ...

    def poll(self, external_id: str, context: Context) -> Call:
        """The call that asks after a running attempt (abilities.poll), or by our key (abilities.lookup)."""
        ...

    def read_poll(self, request: Any, response: Response) -> Report | None:
        """What the answer to a poll means; None: nothing learned, ask again later."""
        ...

    def read_callback(self, body: Any) -> Report:
        """What a callback's JSON body means. Raises InvalidCallback when it is not of the provider's shape."""
        ...

    def remint(self, image: Image, context: Context) -> Call | None:
        """The call that has an expired image URL signed anew, or None where the vendor has none."""
        ...

    def read_remint(self, response: Response) -> Image | None:
        """The image with its fresh URL, or None when the vendor gave none; its `index` says nothing."""
        ...


@dataclass(frozen=True)
class Provider:
    """One vendor: a module in `jobs.providers` holds exactly one as `provider`."""

    #: the module's name, the prefix of its operations and of its settings
    name: str
    default_base_url: str
    operations: Mapping[str, Operation]
    #: further settings of this provider, `<NAME>_<FIELD>` in the environment
    options: type[ProviderOptions]
    #: checks a callback's own signature over the raw body, where a secret is configured; raises InvalidCallback
    verify: Callable[[Any, Mapping[str, str], bytes, datetime], None] | None = None


class OperationDefaults:
    """What most operations have in common; an operation overrides what its vendor can do."""

    def poll(self, external_id: str, context: Context) -> Call:
        raise NotImplementedError("this operation is never polled: its abilities say so")

    def read_poll(self, request: Any, response: Response) -> Report | None:  # noqa: ARG002
        return None

    def read_callback(self, body: Any) -> Report:  # noqa: ARG002
        raise InvalidCallback("this operation sends no callbacks")

    def remint(self, image: Image, context: Context) -> Call | None:  # noqa: ARG002
        return None

    def read_remint(self, response: Response) -> Image | None:  # noqa: ARG002
        return None


def bearer(context: Context) -> dict[str, str]:
    """The headers of a vendor that takes its key as a bearer token and answers in JSON."""
    return {"Authorization": f"Bearer {context.api_key}", "Accept": "application/json"}


def file_part(name: str, picture: InputImage) -> FilePart:
    """The picture as one file of a multipart form."""
    return FilePart(name, picture.filename, picture.content, picture.content_type)


def retry_after(response: Response) -> float | None:
    """`Retry-After` in seconds, or None when it is absent or no number (dates are rare here and not obeyed)."""
    value = response.headers.get("retry-after", "").strip()
    return float(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


def sentence(vendor: str, response: Response) -> str:
    """What a vendor's error answer says, as one sentence for a person, without secrets."""
    return told(f"{vendor} answered {response.status}", parsing.reason(response.document()))


def told(who: str, words: str) -> str:
    """`who: words`, redacted and on one line; only `who` when there are no words."""
    return redaction.redacted(f"{who}: {words}" if words.strip() else who)


def unreadable(vendor: str, response: Response) -> Failed:
    """A 2xx that is cut short, no JSON or of no known shape: what was done, and charged, nobody knows."""
    message = f"{vendor} answered {response.status} with {len(response.body)} bytes that are no known answer"
    return Failed(Code.PROVIDER_ERROR, message, retryable=True, charged=Charged.UNKNOWN)


def failed_by_status(response: Response, message: str) -> Failed:
    """What an HTTP status means where the body says nothing better: the shared last resort of all providers.

    A refused request is `moderated` where its message speaks of the vendor's content policy.
    """
    code, retryable, charged = _BY_STATUS.get(response.status) or _by_class(response.status)
    if code is Code.INVALID_REQUEST and parsing.is_moderation(message):
        code = Code.MODERATED
    return Failed(
        code,
        message,
        retryable=retryable,
        charged=charged,
        retry_after_seconds=retry_after(response),
        not_now=response.status in _NOT_NOW,
    )


#: the provider did nothing, and says nothing about the request
_NOT_NOW = frozenset({429, 503})
_BY_STATUS: Mapping[int, tuple[Code, bool, Charged]] = {
    401: (Code.UNAUTHORIZED, False, Charged.NO),
    402: (Code.OUT_OF_CREDIT, False, Charged.NO),
    403: (Code.UNAUTHORIZED, False, Charged.NO),
    408: (Code.TIMEOUT, True, Charged.UNKNOWN),
    429: (Code.RATE_LIMITED, True, Charged.NO),
    503: (Code.PROVIDER_ERROR, True, Charged.NO),
    504: (Code.TIMEOUT, True, Charged.UNKNOWN),
}


def _by_class(status: int) -> tuple[Code, bool, Charged]:
    if 400 <= status < 500:
        return Code.INVALID_REQUEST, False, Charged.NO
    return Code.PROVIDER_ERROR, True, Charged.UNKNOWN
