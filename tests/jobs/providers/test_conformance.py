"""Every provider says what its recorded answers say. A new provider adds payloads, nothing here."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs import providers
from jobs.errors import InvalidCallback
from jobs.providers._contract import Response
from jobs.report import Failed, Image, Report, Running, Succeeded

_OPERATIONS = providers.operation_names()
#: the profile's examples, shared by all operations
_ITS_SHARE = settings(max_examples=settings().max_examples // len(_OPERATIONS))
_KINDS = {Running: "running", Succeeded: "succeeded", Failed: "failed"}


def _plain(report: Report | None) -> dict[str, Any]:
    """A report as a payload file writes it: no nulls, bytes in base64, times in ISO 8601."""
    if report is None:
        return {"type": "nothing"}
    return {"type": _KINDS[type(report)]} | _without_nulls(asdict(report))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None and (v or k not in _RARE)}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


#: flags that a payload file writes only where they are set
_RARE = ("not_sent", "not_now")


# Recorded ----------------------------------------------------------------------------------------------------------


def test_an_answer_to_a_submit_means_what_is_recorded(submit_payload: Any, recording: Any) -> None:
    operation = recording.operation(submit_payload)

    report = operation.read_answer(recording.request(submit_payload), recording.response(submit_payload))

    assert _plain(report) == submit_payload["report"]


def test_an_answer_to_a_poll_means_what_is_recorded(poll_payload: Any, recording: Any) -> None:
    operation = recording.operation(poll_payload)

    report = operation.read_poll(recording.request(poll_payload), recording.response(poll_payload))

    assert _plain(report) == poll_payload["report"]


def test_a_callback_means_what_is_recorded(callback_payload: Any, recording: Any) -> None:
    operation = recording.operation(callback_payload)

    if callback_payload["report"] == {"type": "invalid"}:
        with pytest.raises(InvalidCallback):
            operation.read_callback(callback_payload["body"])
    else:
        assert _plain(operation.read_callback(callback_payload["body"])) == callback_payload["report"]


def test_a_fresh_url_is_read(remint_payload: Any, recording: Any) -> None:
    image = recording.operation(remint_payload).read_remint(recording.response(remint_payload))

    assert (image and _without_nulls(asdict(image))) == remint_payload["image"]


def test_a_callback_is_accepted_by_its_signature_alone(signature_payload: Any, recording: Any) -> None:
    verify = providers.provider(signature_payload["operation"].partition(".")[0]).verify
    options, body = recording.options(signature_payload), signature_payload["text"].encode()
    now = datetime.fromisoformat(signature_payload["now"])
    assert verify is not None

    if signature_payload["accepted"]:
        verify(options, signature_payload["headers"], body, now)
    else:
        with pytest.raises(InvalidCallback):
            verify(options, signature_payload["headers"], body, now)


def test_an_attempt_can_do_what_is_recorded(abilities_payload: Any, recording: Any) -> None:
    operation = recording.operation(abilities_payload)

    for case in abilities_payload["cases"]:
        payload = abilities_payload | case
        found = operation.abilities(
            recording.request(payload), has_callback=case["has_callback"], options=recording.options(payload)
        )
        assert sorted(name for name, able in asdict(found).items() if able) == case["able"], case


def test_a_malformed_option_is_refused_by_its_name(options_payload: Any) -> None:
    options = providers.provider(options_payload["operation"].partition(".")[0]).options

    for given_options in options_payload["refused"]:
        with pytest.raises(ValidationError) as caught:
            options.model_validate(given_options)
        assert caught.value.errors()[0]["loc"] == tuple(given_options)


# Every provider ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", providers.names())
def test_a_provider_is_named_like_its_file_and_its_operations_like_it(name: str) -> None:
    provider = providers.provider(name)

    assert provider.name == name
    assert provider.default_base_url.startswith("https://")
    assert not provider.default_base_url.endswith("/")
    for full_name, operation in provider.operations.items():
        assert full_name == operation.name == operation.request.operation
        assert full_name.startswith(f"{name}.")


@pytest.mark.parametrize("name", providers.names())
def test_every_option_has_a_default_and_an_example_that_is_valid(name: str) -> None:
    options = providers.provider(name).options

    options()
    for field, info in options.model_fields.items():
        assert info.examples, field
        options.model_validate({field: info.examples[0]})


@pytest.mark.parametrize("name", _OPERATIONS)
def test_a_request_model_describes_itself(name: str, recording: Any) -> None:
    model = providers.operation(name).request
    request = model.model_validate(recording.example(model))

    assert all(field.description for field in model.model_fields.values())
    assert set(model.image_rules) <= set(model.model_fields)
    assert model.model_validate(request.params()) == request


@pytest.mark.parametrize("name", _OPERATIONS)
def test_an_operation_knows_its_size_its_price_and_its_patience(name: str, recording: Any) -> None:
    operation = providers.operation(name)
    request: Any = operation.request.model_validate(recording.example(operation.request))
    price = operation.price(request)

    assert operation.images_expected(request) >= 1
    assert operation.deadline_seconds > 0
    assert price is None or price.amount > 0


@pytest.mark.parametrize("name", _OPERATIONS)
@pytest.mark.parametrize(
    "text", ["", "<html>Bad gateway</html>", '{"images": [{"id": "a", "image_u', "[" * 5000, "null"]
)
def test_an_unreadable_2xx_is_never_taken_for_free(name: str, text: str, recording: Any) -> None:
    operation = providers.operation(name)
    request = recording.request({"operation": name})

    report = operation.read_answer(request, Response(200, {}, text.encode()))

    assert isinstance(report, Failed)
    assert (report.code, report.retryable, report.charged) == ("provider_error", True, "unknown")


# Whatever is sent --------------------------------------------------------------------------------------------------

# fmt: off
_WORDS = [
    "images", "image_url", "id", "status", "data", "url", "b64_json", "task_id", "task_status", "task_result",
    "index", "code", "error", "message", "detail", "loc", "msg", "download_urls", "known_subjects", "counts",
    "job_id", "state", "result", "meta", "usage", "tokens_used", "content_violation", "is_image_safe", "statusCode",
    "completed", "failed", "succeed", "processing", "1303", "0", "{",
]
# fmt: on
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(_WORDS)
    | st.sampled_from(
        ["\ud800", "https://[", "https://a:99999/", "https://a/?se=0001-01-01T00:00:00%2B14:00", "..", "QUJD"]
    )
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=4), inner),
    max_leaves=12,
)
_STATUSES = st.sampled_from([200, 202, 204, 302, 400, 401, 402, 403, 404, 422, 429, 500, 503, 504, 524])
_BODIES = st.binary(max_size=64) | _JSON.map(lambda value: json.dumps(value).encode())


def _is_sound(report: Report | None) -> None:
    """What the rest of the house relies on, whatever a vendor sent."""
    json.dumps(_plain(report)).encode()
    for image in report.images if isinstance(report, Succeeded) else ():
        assert [image.url, image.content, image.refused].count(None) == 2
    if isinstance(report, Failed):
        assert 0 < len(report.message) <= 400
        assert report.message.isprintable()


@pytest.mark.parametrize("name", _OPERATIONS)
@given(status=_STATUSES, body=_BODIES, retry_after=st.text(max_size=4))
@_ITS_SHARE
def test_no_answer_breaks_an_operation(name: str, status: int, body: bytes, retry_after: str) -> None:
    operation, response = providers.operation(name), Response(status, {"retry-after": retry_after}, body)
    request = operation.request.model_validate(operation.request.model_json_schema()["examples"][0])

    _is_sound(operation.read_answer(request, response))
    _is_sound(operation.read_poll(request, response))
    image = operation.read_remint(response)
    assert image is None or image.url


_HOSTILE = (None, True, -1, 10**400, float("nan"), "", "\ud800", "{", "https://[", [], {}, [[]], {"x": {}})


def _spoiled(value: Any) -> Iterator[Any]:
    """The JSON value with each of its nodes, one at a time, replaced by each thing that nobody expects there."""
    yield from _HOSTILE
    nodes = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in nodes:
        for spoiled in _spoiled(inner):
            copy = value.copy()
            copy[key] = spoiled
            yield copy


def test_no_answer_to_a_submit_breaks_when_one_value_is_another(submit_payload: Any, recording: Any) -> None:
    operation, request = recording.operation(submit_payload), recording.request(submit_payload)

    for body in _spoiled(submit_payload["response"].get("body")):
        response = Response(submit_payload["response"]["status"], {}, json.dumps(body).encode())
        _is_sound(operation.read_answer(request, response))


def test_no_answer_to_a_poll_breaks_when_one_value_is_another(poll_payload: Any, recording: Any) -> None:
    operation, request = recording.operation(poll_payload), recording.request(poll_payload)

    for body in _spoiled(poll_payload["response"].get("body")):
        _is_sound(operation.read_poll(request, Response(200, {}, json.dumps(body).encode())))


def test_no_callback_breaks_when_one_value_is_another(callback_payload: Any, recording: Any) -> None:
    operation = recording.operation(callback_payload)

    for body in _spoiled(callback_payload["body"]):
        with suppress(InvalidCallback):
            _is_sound(operation.read_callback(body))


@pytest.mark.parametrize("name", _OPERATIONS)
@given(body=_JSON)
@_ITS_SHARE
def test_no_callback_breaks_an_operation(name: str, body: Any) -> None:
    try:
        report = providers.operation(name).read_callback(body)
    except InvalidCallback:
        return
    _is_sound(report)


@pytest.mark.parametrize("name", [name for name in providers.names() if providers.provider(name).verify])
@given(
    headers=st.dictionaries(st.sampled_from(["webhook-timestamp", "webhook-signature", "webhook-id", "x"]), st.text())
)
@_ITS_SHARE
def test_no_header_passes_for_a_signature(name: str, headers: dict[str, str]) -> None:
    provider = providers.provider(name)
    options = provider.options.model_validate({"webhook_secret": "whsec_c2VjcmV0"})
    assert provider.verify is not None

    with pytest.raises(InvalidCallback):
        provider.verify(options, headers, b"{}", datetime.now(UTC))


@pytest.mark.parametrize("name", _OPERATIONS)
@pytest.mark.parametrize("external_id", ["../../v1/keys", "a b", "x?y=1", "a/b", "%2e%2e", "é"])
def test_an_image_id_never_leaves_its_place_in_a_path(name: str, external_id: str, recording: Any) -> None:
    context = recording.context({"operation": name})

    assert providers.operation(name).remint(Image(0, external_id=external_id), context) is None
