"""A new job: one request and its options, checked in one place, its images staged."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from . import address_guard, providers
from .errors import FieldError, InvalidRequest, not_one_of
from .image_file import Facts, RejectedImage, measure
from .job import Event, Job, OnUnknown, Status
from .providers import _parsing as parsing
from .request import JsonValue, LocalImage, Request, nesting
from .settings import Settings
from .storage import Storage
from .storage.staged import reference_key, stage_image

#: the largest `metadata` of a job, in bytes of JSON
MAX_METADATA_BYTES = 16 << 10
#: the deepest nesting of `metadata`
MAX_METADATA_DEPTH = 32
#: the longest value of a field that is not an image, in characters: a record is read and written at each step of its job
MAX_FIELD_CHARACTERS = 1 << 16
#: the longest deadline, in seconds
MAX_DEADLINE_SECONDS = 7 * 86_400
#: the longest URL of an image or a webhook, in characters
MAX_URL_LENGTH = 4096
#: the longest idempotency key, in characters
MAX_KEY_LENGTH = 255

_STATUSES = tuple(Status)
_ON_UNKNOWN = tuple(OnUnknown)

#: the images of a request that are not staged yet, measured, by the path of their field
_LocalImages: TypeAlias = dict[str, tuple[LocalImage, Facts]]


@dataclass(frozen=True)
class NewJob:
    """One request and its options, for `jobs.enqueue_many`; the options are those of `jobs.enqueue`.

    Examples:
        >>> from jobs.providers import deepmode
        >>> new = jobs.NewJob(deepmode.Generate(model_id="b8a9", prompt="a lake at dawn"), metadata={"user": "42"})
    """

    #: what to render, for example a `deepmode.Generate`
    request: Request
    #: your own data, at most 16 kB as JSON; it comes back with the job and in webhooks
    metadata: Mapping[str, JsonValue] | None = None
    #: how long to wait for the provider, 1 to 604,800 seconds; None: the operation's own deadline
    deadline_seconds: float | None = None
    #: what happens when it is not known whether an attempt was charged: the job fails, or a new attempt is sent
    on_unknown: OnUnknown | Literal["fail", "charge_again"] = OnUnknown.FAIL
    #: whether the images of a canceled job are stored if they arrive after all
    keep_late: bool = False
    #: where webhooks about this job are sent; None: DARKROOM_WEBHOOK_URL
    webhook_url: str | None = None
    #: the statuses that send a webhook; None: DARKROOM_WEBHOOK_EVENTS
    webhook_events: Iterable[str] | None = None


def make_jobs(
    new_jobs: Mapping[str, NewJob],
    settings: Settings,
    storage: Storage,
    now: Callable[[], datetime],
    *,
    idempotency_key: str | None = None,
    owner: str = "",
) -> list[Job]:
    """Check new jobs, stage their images, and return them as queued jobs, not written to Redis yet.

    Each stands under the path that precedes its fields in an error: "" for a single one, "0" for the first of many.
    Raises InvalidRequest with every fault of all of them, before the first image is stored.
    """
    errors = []
    # An empty key is a mistake of the caller, for example an order without a number: without a key, a repeat pays again.
    if idempotency_key is not None and (
        not isinstance(idempotency_key, str)
        or not 1 <= len(idempotency_key) <= MAX_KEY_LENGTH
        or not idempotency_key.isprintable()
    ):
        errors.append(FieldError("idempotency_key", f"should be 1 to {MAX_KEY_LENGTH} printable characters"))
    images: dict[str, _LocalImages] = {}
    events: dict[str, tuple[Status, ...]] = {}
    for path, new in new_jobs.items():
        images[path], events[path], found = _checked(new, settings, storage)
        errors += [error.below(path) if path else error for error in found]
    if errors:
        raise InvalidRequest(*errors)
    requests = {path: new.request for path, new in new_jobs.items()}
    for path, local in images.items():
        if local:
            references = {field: stage_image(storage, image.content, facts) for field, (image, facts) in local.items()}
            requests[path] = requests[path].with_images(references)
    at = now()
    return [_job(new, requests[path], events[path], settings, at, owner) for path, new in new_jobs.items()]


def _job(
    new: NewJob, request: Request, events: tuple[Status, ...], settings: Settings, now: datetime, owner: str
) -> Job:
    operation = providers.operation(request.operation)
    seconds = float(new.deadline_seconds or operation.deadline_seconds)
    return Job(
        id=secrets.token_hex(16),
        operation=operation.name,
        params=request.params(),
        status=Status.QUEUED,
        created_at=now,
        updated_at=now,
        deadline_at=now + timedelta(seconds=seconds),
        deadline_seconds=seconds,
        images_expected=operation.images_expected(request),
        wake_at=now,
        metadata=dict(new.metadata or {}),
        owner=owner,
        on_unknown=OnUnknown(new.on_unknown),
        keep_late=new.keep_late,
        timeline=(Event(now, "queued"),),
        webhook_url=new.webhook_url or settings.webhook_url or None,
        webhook_events=events,
    )


# Checks -----------------------------------------------------------------------------------------------------------


def _checked(
    new: object, settings: Settings, storage: Storage
) -> tuple[_LocalImages, tuple[Status, ...], Sequence[FieldError]]:
    """The images of a new job that are to be staged, the statuses that send a webhook, and everything that is wrong."""
    if not isinstance(new, NewJob):
        kind = type(new).__name__
        return {}, (), [FieldError("", f"should be a jobs.NewJob, not {kind}; write jobs.NewJob(request)")]
    request: object = new.request
    local: _LocalImages = {}
    if isinstance(request, Request):
        local, errors = _checked_fields(request, settings, storage)
    else:
        kind = type(request).__name__
        errors = [FieldError("request", f"should be a request, for example deepmode.Generate, not {kind}")]
    events, event_errors = _checked_events(new.webhook_events, settings)
    options = {name: value for name, value in vars(new).items() if name != "webhook_events"}
    return local, events, (*errors, *option_errors(options, settings), *event_errors)


def errors_of(new: NewJob, settings: Settings, storage: Storage) -> Sequence[FieldError]:
    """Everything that is wrong with a new job."""
    return _checked(new, settings, storage)[2]


def option_errors(options: Mapping[str, Any], settings: Settings) -> Iterator[FieldError]:
    """Everything that is wrong with the options of a new job, by their names; one that is absent has its default."""
    seconds = options.get("deadline_seconds")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 1 <= seconds <= MAX_DEADLINE_SECONDS):
        allowed, value = f"1 to {MAX_DEADLINE_SECONDS} seconds", repr(seconds)[:80]
        yield FieldError("deadline_seconds", f"should be {allowed}, not {value}", value, allowed)
    if (on_unknown := options.get("on_unknown", OnUnknown.FAIL)) not in _ON_UNKNOWN:
        yield not_one_of("on_unknown", on_unknown, _ON_UNKNOWN)
    if not isinstance(keep_late := options.get("keep_late", False), bool):
        value = repr(keep_late)[:80]
        yield FieldError("keep_late", f"should be true or false, not {value}", value, "true or false")
    if (metadata := options.get("metadata")) is not None:
        yield from _metadata_errors(metadata)
    if url := options.get("webhook_url") or settings.webhook_url:
        yield from _url_errors("webhook_url", url, settings)
    yield from _checked_events(options.get("webhook_events"), settings)[1]


def _metadata_errors(metadata: object) -> Iterator[FieldError]:
    allowed = f"an object of JSON values, at most {MAX_METADATA_BYTES} bytes"
    if not isinstance(metadata, Mapping):
        yield FieldError("metadata", f"should be {allowed}, not {type(metadata).__name__}", allowed=allowed)
        return
    try:
        text = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError) as error:
        yield FieldError("metadata", f"should be {allowed}: {error}", allowed=allowed)
    except RecursionError:
        yield _too_deep()
    else:
        if size > MAX_METADATA_BYTES:
            yield FieldError("metadata", f"should be {allowed}, not {size}", f"{size} bytes", allowed)
        elif not all(isinstance(key, str) for key in metadata):
            yield FieldError("metadata", "keys should be strings", allowed=allowed)
        elif text.count("{") + text.count("[") > MAX_METADATA_DEPTH and nesting(json.loads(text)) > MAX_METADATA_DEPTH:
            yield _too_deep()


def _too_deep() -> FieldError:
    return FieldError("metadata", f"should be nested at most {MAX_METADATA_DEPTH} levels deep")


def _checked_events(given: object, settings: Settings) -> tuple[tuple[Status, ...], Sequence[FieldError]]:
    """The statuses that send a webhook, and what is wrong with them. One alone may be given as it is."""
    if given is None:
        return settings.webhook_events, ()
    if isinstance(given, str):
        named = {"webhook_events": given}
    elif isinstance(given, Iterable):
        named = {f"webhook_events.{index}": name for index, name in enumerate(given)}
    else:
        return (), [FieldError("webhook_events", f"should be a list of statuses, not {type(given).__name__}")]
    errors = [not_one_of(field, name, _STATUSES) for field, name in named.items() if name not in _STATUSES]
    return () if errors else tuple(map(Status, dict.fromkeys(named.values()))), errors


def _checked_fields(request: Request, settings: Settings, storage: Storage) -> tuple[_LocalImages, list[FieldError]]:
    """The images that are to be staged, measured, and what is wrong with the fields of the request."""
    local: _LocalImages = {}
    errors = [
        FieldError(name, f"should have at most {MAX_FIELD_CHARACTERS} characters, not {length}")
        for name, value in request
        if name not in request.image_rules and (length := len(str(value))) > MAX_FIELD_CHARACTERS
    ]
    for field, rule, image in request.images():
        if isinstance(image, LocalImage):
            allowed = f"{', '.join(rule.content_types)} of at most {rule.max_bytes} bytes"
            try:
                facts = measure(image.content, max_bytes=rule.max_bytes)
            except RejectedImage as error:
                errors.append(FieldError(field, f"{error}; allowed: {allowed}", allowed=allowed))
                continue
            if facts.content_type in rule.content_types:
                local[field] = image, facts
            else:
                kind = facts.content_type
                errors.append(FieldError(field, f"{kind} is not accepted; allowed: {allowed}", kind, allowed))
        elif not image.startswith("staged:"):
            errors += _url_errors(field, image, settings)
        elif not storage.renew(reference_key(image)):
            errors.append(FieldError(field, f"{image} is not staged any more; upload the image again", image))
    return local, errors


def _url_errors(field: str, url: str, settings: Settings) -> Iterator[FieldError]:
    """Checks a URL without looking up its host; the address is checked where the connection is opened."""
    readable = isinstance(url, str) and len(url) <= MAX_URL_LENGTH and parsing.url(url)
    match = address_guard.URL.fullmatch(url) if readable else None
    allowed = f"an https URL of at most {MAX_URL_LENGTH} characters, without a user name"
    if match is None:
        yield FieldError(field, f"should be {allowed}", allowed=allowed)
    elif match["scheme"].lower() == "http" and not settings.allowed_private_networks:
        yield FieldError(field, f"should be an https URL; the one at {match['host']} is http", match["host"], allowed)
