"""The JSON of a job."""

from __future__ import annotations

import json
import typing
from datetime import UTC, datetime, timedelta

import pytest

from jobs import NotPossible
from jobs.attempt import Attempt, Outcome
from jobs.delivery import Delivery, Try
from jobs.images import Artifact, ArtifactStorage, AtUrl, Missing, PendingImage
from jobs.job import Event, Failure, Job, OnUnknown, Status
from jobs.report import Charged, Code, Cost, Unit
from jobs.view import JobView, View

BEGAN = datetime(2026, 11, 20, 8, 30, 0, 123456, UTC)
ENDED = BEGAN + timedelta(seconds=90)


BUCKET = ArtifactStorage(lambda key, _: f"https://bucket/{key}?signed", lambda _: b"the image")


def artifact(index: int, *, signed: bool = True) -> Artifact:
    """A stored image."""
    return Artifact(index, f"jobs/j/1/{index}.png", "image/png", 9, "f" * 64, 2, 3, storage=BUCKET if signed else None)


def job(**changes: object) -> Job:
    """A job with everything on it."""
    attempt = Attempt(
        1,
        "deepmode.generate",
        BEGAN,
        "a-holder",
        outcome=Outcome.SUCCEEDED,
        external_id="theirs",
        charged=Charged.YES,
        expected_cost=Cost(1.0, Unit.CREDIT),
        cost=Cost(2.0, Unit.CREDIT),
        ended_at=ENDED,
    )
    known: dict[str, object] = {
        "id": "j",
        "operation": "deepmode.generate",
        "params": {"prompt": "a secret wish"},
        "status": Status.SUCCEEDED,
        "created_at": BEGAN,
        "updated_at": ENDED,
        "deadline_at": BEGAN + timedelta(seconds=900),
        "deadline_seconds": 900.0,
        "images_expected": 3,
        "wake_at": None,
        "attempts": (attempt,),
        "artifacts": (artifact(0),),
        "missing": (Missing(1, Code.RESULT_EXPIRED, "gone", PendingImage(1, 1, AtUrl("https://theirs/1?sig"))),),
        "pending": (PendingImage(2, 1, AtUrl("https://theirs/2?sig")),),
        "finished_at": ENDED,
        "metadata": {"user": "42"},
        "on_unknown": OnUnknown.CHARGE_AGAIN,
        "timeline": (Event(BEGAN, "queued", 2),),
        "webhook_url": "https://user:password@app.example.com:8443/hook?token=a-secret-token#part",
        "deliveries": (Delivery("msg_j_1", "succeeded", ENDED, None, ENDED, 1, log=(Try(ENDED, 204),)),),
    }
    return Job(**{**known, **changes})  # type: ignore[arg-type]


def view(job: Job) -> dict[str, typing.Any]:
    """The job's JSON, parsed."""
    parsed: dict[str, typing.Any] = json.loads(JobView.of(job).model_dump_json())
    return parsed


def test_the_view_contains_the_whole_job() -> None:
    shown = view(job())

    assert shown["id"] == "j"
    assert (shown["status"], shown["operation"], shown["attempt"]) == ("succeeded", "deepmode.generate", 1)
    assert (shown["created_at"], shown["finished_at"]) == ("2026-11-20T08:30:00.123Z", "2026-11-20T08:31:30.123Z")
    assert (shown["error"], shown["metadata"], shown["on_unknown"]) == (None, {"user": "42"}, "charge_again")
    assert shown["missing"] == [{"index": 1, "code": "result_expired", "message": "gone"}]
    assert shown["timeline"] == [{"at": "2026-11-20T08:30:00.123Z", "what": "queued", "times": 2}]


def test_an_attempt_is_a_line_of_the_ledger() -> None:
    assert view(job())["attempts"] == [
        {
            "number": 1,
            "first_number": None,
            "times": 1,
            "refusals": 0,
            "operation": "deepmode.generate",
            "provider": "deepmode",
            "started_at": "2026-11-20T08:30:00.123Z",
            "ended_at": "2026-11-20T08:31:30.123Z",
            "outcome": "succeeded",
            "external_id": "theirs",
            "charged": "yes",
            "expected_cost": {"amount": 1.0, "unit": "credit"},
            "cost": {"amount": 2.0, "unit": "credit"},
            "code": None,
            "message": None,
        }
    ]


def test_an_artifact_has_a_signed_url() -> None:
    assert view(job())["artifacts"] == [
        {
            "index": 0,
            "key": "jobs/j/1/0.png",
            "url": "https://bucket/jobs/j/1/0.png?signed",
            "content_type": "image/png",
            "size": 9,
            "sha256": "f" * 64,
            "width": 2,
            "height": 3,
        }
    ]


def test_an_error_has_a_code_and_a_message() -> None:
    shown = view(job(status=Status.FAILED, error=Failure(Code.DEADLINE, "too late")))

    assert shown["error"] == {"code": "deadline", "message": "too late"}


def test_a_delivery_has_its_tries() -> None:
    at = "2026-11-20T08:31:30.123Z"
    assert view(job())["deliveries"] == [
        {
            "id": "msg_j_1",
            "event": "succeeded",
            "created_at": at,
            "delivered_at": at,
            "next_at": None,
            "tries": 1,
            "log": [{"at": at, "status": 204, "problem": None}],
        }
    ]


def test_the_webhook_url_contains_no_secrets() -> None:
    assert view(job())["webhook_url"] == "https://app.example.com:8443/hook"


def test_the_view_contains_neither_the_request_nor_a_providers_url() -> None:
    text = JobView.of(job()).model_dump_json()

    assert "a secret wish" not in text
    assert "theirs/" not in text
    assert "a-secret-token" not in text
    assert "password" not in text


def test_a_job_that_is_not_bound_to_the_storage_has_no_view() -> None:
    with pytest.raises(NotPossible, match=r"jobs\.get"):
        JobView.of(job(artifacts=(artifact(0, signed=False),)))


def test_a_reader_gets_the_values_back_from_the_json() -> None:
    job_view = JobView.of(job())

    parsed = JobView.model_validate_json(job_view.model_dump_json())

    assert parsed.model_dump(mode="json") == job_view.model_dump(mode="json")
    assert parsed.created_at == BEGAN.replace(microsecond=123000)
    assert parsed.status is Status.SUCCEEDED


def test_a_job_that_was_never_sent_has_attempt_zero() -> None:
    assert JobView.of(job(attempts=())).attempt == 0


@pytest.mark.parametrize("part", View.__subclasses__(), ids=lambda part: part.__name__)
def test_each_field_has_a_description(part: type[View]) -> None:
    assert [name for name, field in part.model_fields.items() if not field.description] == []
