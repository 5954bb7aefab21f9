"""Every provider keeps the contract and reads its payload files as they say. A new provider adds files, nothing here."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import providers
from jobs.errors import InvalidCallback
from jobs.providers import Operation, Response
from jobs.providers import _conformance as conformance
from jobs.report import Report

PAYLOADS = Path(os.path.relpath(Path(__file__).parent / "payloads"))
_OPERATIONS = providers.operation_names()
#: the profile's examples, shared by all operations
_SHARED_EXAMPLES = settings(max_examples=max(1, settings().max_examples // len(_OPERATIONS)))


_CHECKS = [
    pytest.param(check, id=f"{name}: {check.title}")
    for name in providers.names()
    for check in conformance.checks(providers.provider(name), PAYLOADS / name)
]


@pytest.mark.parametrize("check", _CHECKS)
def test_a_provider_conforms(check: conformance.Check) -> None:
    sentence = ""
    try:
        check.run()
    except conformance.Nonconformity as nonconformity:
        sentence = str(nonconformity)
    if sentence:
        pytest.fail(sentence, pytrace=False)  # outside of the except clause: without the exception's own traceback


def test_payload_files_belong_to_a_provider() -> None:
    assert {folder.name for folder in PAYLOADS.iterdir()} == set(providers.names())


# Whatever a provider sends ------------------------------------------------------------------------------------------

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
_STATUSES = st.sampled_from([200, 202, 204, 302, 400, 401, 402, 403, 404, 422, 429, 500, 503, 504, 521, 524])
_BODIES = st.binary(max_size=64) | _JSON.map(lambda value: json.dumps(value).encode())


def _request(operation: Operation) -> Any:
    return operation.request.model_validate(providers.examples(operation)[0])


def _is_sound(report: Report | None) -> None:
    conformance.check_report(report, "a report")


@pytest.mark.parametrize("name", _OPERATIONS)
@given(status=_STATUSES, body=_BODIES, retry_after=st.text(max_size=4), date=st.text(max_size=4))
@_SHARED_EXAMPLES
def test_no_answer_breaks_an_operation(name: str, status: int, body: bytes, retry_after: str, date: str) -> None:
    operation, response = providers.operation(name), Response(status, {"retry-after": retry_after, "date": date}, body)
    request = _request(operation)

    _is_sound(operation.read_answer(request, response))
    _is_sound(operation.read_poll(request, response))
    image = operation.read_remint(response)
    assert image is None or image.url


@pytest.mark.parametrize("name", _OPERATIONS)
@given(body=_JSON)
@_SHARED_EXAMPLES
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
@_SHARED_EXAMPLES
def test_no_header_passes_for_a_signature(name: str, headers: dict[str, str]) -> None:
    provider = providers.provider(name)
    [secret] = provider.options.model_fields["webhook_secret"].examples or []
    options = provider.options.model_validate({"webhook_secret": secret})
    assert provider.verify is not None

    with pytest.raises(InvalidCallback):
        provider.verify(options, headers, b"{}", datetime.now(UTC))
