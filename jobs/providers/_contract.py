"""The contract between Darkroom and a provider: a pure translation in both directions, without I/O.

A provider file holds request models, one `Operation` for each, and one `Provider`. It turns a request into a `Call`,
and a `Response` or a callback's body into a `Report`. What else Darkroom must know of it (can a result still come by
callback? is there an idempotency key?) is data: see `Abilities`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DarkroomError, InvalidCallback, InvalidRequest
from ..report import Charged, Code, Cost, Failed, Image, Report
from ..request import Request
from . import _parsing as parsing
from . import _redaction as redaction


class InvalidProvider(DarkroomError):
    """A provider that is installed cannot be used; the message says why. The others are not affected."""


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
    """One HTTP request to a provider.

    At most one of `json` and (`form`, `files`) is set; with `files` the form is sent as multipart.
    """

    method: str
    #: below the provider's base URL; sent byte for byte
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    files: Sequence[FilePart] = ()
    #: how long the whole exchange may take
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class Response:
    """A provider's response to a `Call`."""

    status: int
    #: by their names in lower case
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        """A 2xx: the provider says that it did something, though the body may still say otherwise."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not JSON."""
        return parsing.parse_json(self.body)

    def document(self) -> Any:
        """The body as JSON, or None when it is not JSON."""
        try:
            return self.json()
        except ValueError:
            return None


@dataclass(frozen=True)
class InputImage:
    """An input image with its bytes, for a provider that takes bytes."""

    content: bytes = field(repr=False)
    content_type: str
    #: its extension is that of its content
    filename: str

    def base64(self) -> str:
        """The bytes as plain base64."""
        return base64.b64encode(self.content).decode("ascii")


@dataclass(frozen=True)
class Abilities:
    """What a provider can do for one attempt. Retries and recovery follow from this, never from a provider's name."""

    #: a submit that is repeated under the same attempt key returns the first job and is not charged again
    idempotent: bool = False
    #: the result comes by callback, even when the answer to the submit was lost
    callback: bool = False
    #: an attempt can be looked up by our own key, without the provider's id
    lookup: bool = False
    #: a running attempt can be polled by the provider's id
    poll: bool = False
    #: the answer to the submit can hold the images themselves
    inline_images: bool = False


@dataclass(frozen=True)
class Context:
    """What a call needs besides the request."""

    #: our name for the attempt, the same whenever the same attempt is sent again
    attempt_key: str
    #: where the provider sends callbacks for this attempt, or None without a public URL; a secret
    callback_url: str | None = field(default=None, repr=False)
    #: the provider's API key; a secret
    api_key: str = field(default="", repr=False)
    #: the input images that are sent as bytes, by their reference in the request
    inputs: Mapping[str, InputImage] = field(default_factory=dict)
    #: the provider's `Options`, already checked
    options: Any = None


class ProviderOptions(BaseModel):
    """The base of all `Options`: each field is `<NAME>_<FIELD>` in the environment; an empty variable counts as unset."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Operation(Protocol):
    """One service of a provider, bound to its request model."""

    #: for example `deepmode.generate`
    name: str
    request: type[Request]
    #: how long a job waits for the provider, from its enqueue, unless the job says otherwise
    deadline_seconds: float

    def abilities(self, request: Any, *, has_callback: bool, options: Any) -> Abilities:
        """What this attempt will be able to do; `has_callback` is False without a public URL."""
        ...

    def images_expected(self, request: Any) -> int:
        """How many images the request asks for."""
        ...

    def price(self, request: Any) -> Cost | None:
        """What the request is expected to cost, or None when the price is unknown."""
        ...

    def submit(self, request: Any, context: Context) -> Call:
        """The call that costs money."""
        ...

    def read_answer(self, request: Any, response: Response) -> Report:
        """What the answer to the submit means. Never raises, for any bytes."""
        ...

    def poll(self, external_id: str, context: Context) -> Call:
        """The call that polls a running attempt by the provider's id (abilities.poll) or by our key (abilities.lookup)."""
        ...

    def read_poll(self, request: Any, response: Response) -> Report | None:
        """What the answer to a poll means; None: nothing new, poll again later."""
        ...

    def read_callback(self, body: Any) -> Report:
        """What a callback's JSON body means. Raises InvalidCallback when it is not of the provider's shape."""
        ...

    def remint(self, image: Image, context: Context) -> Call | None:
        """The call that has an expired image URL signed again, or None where the provider cannot."""
        ...

    def read_remint(self, response: Response) -> Image | None:
        """The image with its fresh URL, or None when there is none; its `index` means nothing."""
        ...


#: the name of a provider: a prefix of settings and operations, and a part of its callback URL
NAME = re.compile(r"[a-z][a-z0-9]*")
NAME_IN_WORDS = "lower-case letters and digits, for example acme"


@dataclass(frozen=True)
class Provider:
    """One provider: its file holds exactly one, as `provider`."""

    #: the file's name, the prefix of its operations and of its settings
    name: str
    default_base_url: str
    operations: Mapping[str, Operation]
    #: further settings of this provider, `<NAME>_<FIELD>` in the environment
    options: type[ProviderOptions]
    #: checks a callback's signature: options, headers, raw body, now. Raises InvalidCallback. Where the secret is not set
    #: it accepts everything, since the callback's URL already holds a token of ours
    verify: Callable[[Any, Mapping[str, str], bytes, datetime], None] | None = None

    def __post_init__(self) -> None:
        """Raises InvalidProvider for what would make lists of all operations or settings fail."""
        if not NAME.fullmatch(self.name):
            raise InvalidProvider(f"the name {self.name!r} must be {NAME_IN_WORDS}")
        if not self.operations:
            raise InvalidProvider(f"{self.name} has no operation: add one to `operations`")
        for full_name, operation in self.operations.items():
            names = {full_name, operation.name, operation.request.operation}
            if names != {full_name} or not full_name.startswith(f"{self.name}."):
                message = "the key in `operations`, `name` and the request's `operation` must be the same"
                raise InvalidProvider(
                    f"{message}, {self.name}.<service>, and not {', '.join(sorted(map(repr, names)))}"
                )
            _check_request(operation)
        try:
            self.options()
        except ValidationError as error:
            fields = ", ".join(str(one["loc"][0]) for one in error.errors())
            raise InvalidProvider(f"give {fields} of the options of {self.name} a valid default") from None


def examples(operation: Operation) -> tuple[dict[str, Any], ...]:
    """The examples in the request model, which documentation and the demo use as they are; at least one."""
    extra: Any = operation.request.model_config.get("json_schema_extra")
    return tuple(extra.get("examples", ())) if isinstance(extra, Mapping) else ()


def _check_request(operation: Operation) -> None:
    """Raise InvalidProvider unless each field has a name of its own, and the model accepts its own examples."""
    model = operation.request.__name__
    if taken := sorted(set(dir(Request)).intersection(operation.request.model_fields)):
        raise InvalidProvider(
            f"rename the field {taken[0]} of {model}: every request has a method of that name; write the provider's name in submit()"
        )
    if not examples(operation):
        code = "model_config = ConfigDict(json_schema_extra={'examples': [...]})"
        raise InvalidProvider(f"add an example to {model}: {code}")
    for given in examples(operation):
        try:
            operation.request.model_validate(given)
        except InvalidRequest as error:
            raise InvalidProvider(f"correct the example of {model}: {error}") from None


class OperationDefaults:
    """What most operations have in common; an operation overrides what its provider can do."""

    def poll(self, external_id: str, context: Context) -> Call:
        raise NotImplementedError("this operation is never polled: its abilities say so")

    def read_poll(self, request: Any, response: Response) -> Report | None:
        return None

    def read_callback(self, body: Any) -> Report:
        raise InvalidCallback("this operation sends no callbacks")

    def remint(self, image: Image, context: Context) -> Call | None:
        return None

    def read_remint(self, response: Response) -> Image | None:
        return None


def bearer(context: Context) -> dict[str, str]:
    """The headers for a provider that takes its key as a bearer token and answers in JSON."""
    return {"Authorization": f"Bearer {context.api_key}", "Accept": "application/json"}


def file_part(name: str, image: InputImage) -> FilePart:
    """The image as one file of a multipart form."""
    return FilePart(name, image.filename, image.content, image.content_type)


# What an error means ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meaning:
    """What an error of a provider means, by its HTTP status or by a code in its body."""

    code: Code
    #: whether the same request may succeed later
    retryable: bool = False
    charged: Charged = Charged.NO
    #: the provider did nothing, and says nothing about the request
    not_now: bool = False

    def failure(self, response: Response, message: str) -> Failed:
        """The failure, with the wait that the response asks for."""
        return Failed(
            self.code,
            message,
            retryable=self.retryable,
            charged=self.charged,
            retry_after_seconds=retry_after_seconds(response),
            not_now=self.not_now,
        )


#: too many requests, or too much load: the provider did nothing
OVERLOADED = Meaning(Code.RATE_LIMITED, retryable=True, not_now=True)
_UNAVAILABLE = Meaning(Code.PROVIDER_ERROR, retryable=True, not_now=True)

_BY_STATUS: Mapping[int, Meaning] = {
    401: Meaning(Code.UNAUTHORIZED),
    402: Meaning(Code.OUT_OF_CREDIT),
    403: Meaning(Code.UNAUTHORIZED),
    408: Meaning(Code.TIMEOUT, retryable=True, charged=Charged.UNKNOWN),
    429: OVERLOADED,
    503: _UNAVAILABLE,
    504: Meaning(Code.TIMEOUT, retryable=True, charged=Charged.UNKNOWN),
    # Cloudflare, which could not open a connection to the provider. 522 is not here: it also means that the provider
    # stopped acknowledging after the request was sent.
    521: _UNAVAILABLE,
    523: _UNAVAILABLE,
    525: _UNAVAILABLE,
    526: _UNAVAILABLE,
    530: _UNAVAILABLE,
}
_REFUSED = Meaning(Code.INVALID_REQUEST)
_BROKEN = Meaning(Code.PROVIDER_ERROR, retryable=True, charged=Charged.UNKNOWN)
#: statuses that refuse a request without saying why: their message may speak of load
_UNSPECIFIC = frozenset({400, 403, 409, 425})
#: words that a provider quotes, perhaps of the prompt
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|“[^”]*”|`[^`]*`")


def failed_by_status(response: Response, message: str) -> Failed:
    """What an HTTP status means where the body says nothing better; every provider falls back on it.

    A refused request is `moderated` where its message speaks of the provider's content policy, and `rate_limited` where
    it speaks of load.
    """
    meaning = _BY_STATUS.get(response.status) or (_REFUSED if 400 <= response.status < 500 else _BROKEN)
    if response.status in _UNSPECIFIC and parsing.is_overload(_QUOTED.sub("", message)):
        meaning = OVERLOADED
    elif meaning is _REFUSED and parsing.is_moderation(message):
        meaning = Meaning(Code.MODERATED)
    return meaning.failure(response, message)


def unreadable(provider: str, response: Response) -> Failed:
    """A 2xx that is cut short, not JSON or of an unknown shape: it is not known what was done, and charged."""
    message = f"{provider} answered {response.status} with {len(response.body)} bytes that are not a known answer"
    return Failed(Code.PROVIDER_ERROR, message, retryable=True, charged=Charged.UNKNOWN)


def error_message(provider: str, response: Response) -> str:
    """The message of an error answer: the provider, the status and the provider's own words, without secrets."""
    return quoted(f"{provider} answered {response.status}", parsing.reason(response.document()))


def quoted(subject: str, words: str) -> str:
    """`subject: words`, redacted and on one line; only `subject` when there are no words."""
    return redaction.redacted(f"{subject}: {words}" if words.strip() else subject)


#: the longest wait that is taken from a `Retry-After`, in seconds; a longer one counts as this
MAX_RETRY_AFTER_SECONDS = 86_400.0


def retry_after_seconds(response: Response) -> float | None:
    """The wait that `Retry-After` asks for, in seconds, or None when it is absent or cannot be read.

    An HTTP date counts from the response's own `Date`, so that a provider whose clock is wrong is still understood.
    """
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", value):
        seconds = float(value)
    else:
        until, since = parsing.http_date(value), parsing.http_date(response.headers.get("date", ""))
        if until is None or since is None:
            return None
        seconds = (until - since).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
