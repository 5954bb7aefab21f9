"""Records as text: a field that only a later version knows survives the writes of this one, wherever it stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import transitions
from jobs.attempt import Attempt, Outcome
from jobs.delivery import Delivery, Try
from jobs.errors import Unavailable
from jobs.images import Artifact, AtUrl, InSpool, Missing, PendingImage
from jobs.job import Event, Failure, Job, Status
from jobs.report import Code, Cost, Running, Unit
from jobs.state import record

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
ID = "a" * 32
VERSION = f"{record.SCHEMA}.1.abcdef01"

_IMAGE = PendingImage(0, 1, AtUrl("https://provider/0", "img-0", NOW), 1, 2, NOW, NOW)
JOB = Job(
    id=ID,
    operation="provider.paint",
    params={"prompt": "a lake", "size": {"width": 5}},
    status=Status.RUNNING,
    created_at=NOW,
    updated_at=NOW,
    deadline_at=NOW + timedelta(seconds=600),
    deadline_seconds=600,
    images_expected=4,
    wake_at=NOW,
    attempts=(
        Attempt(1, "provider.paint", NOW, "w", Outcome.REJECTED, ended_at=NOW, code=Code.TIMEOUT),
        Attempt(
            2, "provider.paint", NOW, "w", Outcome.ACCEPTED, expected_cost=Cost(1, Unit.USD), cost=Cost(2, Unit.USD)
        ),
    ),
    pending=(_IMAGE, PendingImage(1, 1, InSpool("file"))),
    artifacts=(Artifact(2, "key", "image/png", 1, "ab", 2, 3, 1),),
    missing=(Missing(3, Code.STORAGE_ERROR, "away", _IMAGE),),
    given_up=Failure(Code.DEADLINE, "late"),
    metadata={"user": "42"},
    timeline=(Event(NOW, "queued"), Event(NOW, "submitting 1", 3)),
    webhook_url="https://customer/hook",
    webhook_events=(Status.RUNNING,),
    deliveries=(Delivery("msg_1", "running", NOW, NOW, log=(Try(NOW, 500),)),),
    version=VERSION,
)
#: transitions that keep each value of the job
CHANGES: Mapping[str, Callable[[Job], Job]] = {
    "claimed": lambda job: transitions.claimed(job, "worker", NOW),
    "canceled": lambda job: transitions.canceled(job, NOW),
    "accepted": lambda job: transitions.reported(job, 2, Running("ext-9"), NOW),
    "noted": lambda job: transitions.noted(job, "something", NOW),
    "delivered": lambda job: transitions.delivery_tried(job, "msg_1", Try(NOW, 200)),
}
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
_FIELDS = st.dictionaries(st.from_regex(r"later_[a-z]{1,8}", fullmatch=True), _VALUES, max_size=2)


def values(part: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the values of a job stand in its JSON; what its user gave is not ours to change."""
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    if isinstance(part, dict):
        yield path
    for name, item in items:
        if name not in ("params", "metadata"):
            yield from values(item, (*path, name))


def at(part: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        part = part[name]
    return part


def fields_of(text: bytes) -> Any:
    return json.loads(record.json_of(text))


PLACES = tuple(values(fields_of(record.dumped(JOB, VERSION))))


def test_every_kind_of_value_is_tried() -> None:
    names = {name for place in PLACES for name in place if isinstance(name, str)}
    assert names >= {"attempts", "expected_cost", "pending", "source", "artifacts", "missing", "image", "given_up"}
    assert names >= {"timeline", "deliveries", "log"}


@given(
    change=st.sampled_from(tuple(CHANGES)),
    later=st.dictionaries(st.sampled_from(PLACES), _FIELDS, min_size=1, max_size=4),
)
def test_fields_of_a_later_version_survive_a_write(
    change: str, later: Mapping[tuple[str | int, ...], Mapping[str, Any]]
) -> None:
    written = fields_of(record.dumped(JOB, VERSION))
    for place, fields in later.items():
        at(written, place).update(fields)
    job = record.loaded(ID, f"{VERSION}. {json.dumps(written)}".encode())
    assert job == JOB
    changed = CHANGES[change](job)
    assert changed == CHANGES[change](JOB)
    again = fields_of(record.dumped(changed, VERSION))
    for place, fields in later.items():
        assert {name: at(again, place)[name] for name in fields} == fields
    assert record.loaded(ID, record.dumped(changed, VERSION)) == changed


def test_a_job_without_later_fields_is_written_as_it_was_read() -> None:
    text = record.dumped(JOB, VERSION)
    job = record.loaded(ID, text)
    assert (job, job.has_later_fields) == (JOB, False)
    assert record.dumped(job, VERSION) == text
    assert record.dumped(replace(job, has_later_fields=True), VERSION) == text


# --- compression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", Status)
def test_a_job_that_stays_for_long_is_compressed(status: Status) -> None:
    job = replace(JOB, status=status)
    text = record.dumped(job, VERSION)
    assert text.startswith(f"{VERSION}. ".encode())
    assert (b'"operation"' in text) == (status in (Status.QUEUED, Status.SUBMITTING, Status.STORING))
    assert record.loaded(ID, text) == job


@given(prompt=st.text(max_size=20_000))
def test_whatever_a_user_wrote_is_read_as_it_was_written(prompt: str) -> None:
    job = replace(JOB, params={"prompt": prompt})
    assert record.loaded(ID, record.dumped(job, VERSION)) == job


def test_another_dictionary_needs_another_schema() -> None:
    """Processes of both versions read the records of this schema, with the dictionary that each of them has."""
    digest = hashlib.sha256(record.DICTIONARY).hexdigest()
    assert (record.SCHEMA, digest[:16]) == (4, "cdb40e1917124018")


@given(place=st.integers(0), flipped=st.integers(1, 255))
def test_a_damaged_body_is_never_read_as_another_job(place: int, flipped: int) -> None:
    text = bytearray(record.dumped(JOB, VERSION))
    start = text.index(b" ") + 1
    text[start + place % (len(text) - start)] ^= flipped
    with suppress(Unavailable):  # some bits mean nothing
        assert record.loaded(ID, bytes(text)) == JOB


def test_a_body_that_is_cut_short_is_damaged() -> None:
    text = record.dumped(JOB, VERSION)
    for length in range(text.index(b" ") + 1, len(text)):
        with pytest.raises(Unavailable, match="is damaged"):
            record.loaded(ID, text[:length])
