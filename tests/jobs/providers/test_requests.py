"""What goes over the wire for each request, and which requests never do."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from jobs import InvalidRequest, providers
from jobs.providers._contract import Call
from jobs.report import Image


def _plain(call: Call) -> dict[str, Any]:
    """A call as a payload file writes it: without what is empty."""
    files = [
        [part.name, part.filename, part.content_type, base64.b64encode(part.content).decode()] for part in call.files
    ]
    found = {
        "method": call.method,
        "path": call.path,
        "headers": dict(call.headers),
        "json": call.json,
        "form": call.form and dict(call.form),
        "files": files,
        "timeout_seconds": call.timeout_seconds,
    }
    return {name: value for name, value in found.items() if value}


def _call(payload: Any, recording: Any) -> Call | None:
    operation, context = recording.operation(payload), recording.context(payload)
    if payload["of"] == "poll":
        return operation.poll(payload["external_id"], context)
    if payload["of"] == "remint":
        return operation.remint(Image(0, external_id=payload["external_id"]), context)
    return operation.submit(recording.request(payload), context)


def test_a_call_is_what_is_recorded_byte_for_byte(call_payload: Any, recording: Any) -> None:
    call = _call(call_payload, recording)

    assert (call and _plain(call)) == call_payload["call"]


@pytest.mark.parametrize("name", providers.operation_names())
def test_each_submit_is_recorded(name: str, pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.rootpath / "tests/jobs/providers/payloads" / name.partition(".")[0]

    assert any(f'"{name}"' in file.read_text("utf-8") for file in folder.glob("call-*.json"))


@pytest.mark.parametrize("name", providers.operation_names())
def test_a_key_shows_nowhere(name: str, recording: Any) -> None:
    context = recording.context({"operation": name, "callback_url": "https://d.example/webhooks/x/the-token"})

    assert "the-key" not in repr(context)
    assert "the-token" not in repr(context)


def test_wrong_params_are_refused_by_the_name_of_their_field(params_payload: Any, recording: Any) -> None:
    model = recording.operation(params_payload).request
    good = recording.example(model)

    for case in params_payload["refused"]:
        with pytest.raises(InvalidRequest) as caught:
            model.model_validate(good | case["params"])
        assert case["field"] in {error.field for error in caught.value.errors}, case


def test_good_params_are_taken(params_payload: Any, recording: Any) -> None:
    model = recording.operation(params_payload).request
    good = recording.example(model)

    for params in params_payload["accepted"]:
        model.model_validate({name: value for name, value in (good | params).items() if value is not None})


def test_a_required_field_is_missed_by_its_name(params_payload: Any, recording: Any) -> None:
    model = recording.operation(params_payload).request
    good = recording.example(model)

    for field in params_payload["required"]:
        with pytest.raises(InvalidRequest) as caught:
            model.model_validate({name: value for name, value in good.items() if name != field})
        assert [(error.field, error.message) for error in caught.value.errors] == [(field, "required")]
