"""`darkroom list`: its filters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs import Code, Failure, Status, transitions
from jobs.darkroom import Darkroom
from jobs.providers import deepmode, phota
from jobs.values import replace

Command = Callable[..., Any]

PHOTA = phota.Remix(
    input_image="https://example.com/a.jpg",
    reference_image="https://example.com/b.jpg",
    num_output_images=1,
    output_format="jpg",
    response_mode="urls",
)


@pytest.fixture
def jobs_by_name(alone: Darkroom) -> Mapping[str, str]:
    """The ids of some jobs: two that are queued, one that failed, and one that may have been charged."""
    generate = deepmode.Generate(model_id="b8a9", prompt="a lake")
    failed = alone.enqueue(generate, metadata={"user": "42", "order": "17"})
    unknown = alone.enqueue(generate, metadata={"user": "42"}, on_unknown="fail")
    ids = {
        "failed": failed.id,
        "unknown": unknown.id,
        "queued": alone.enqueue(generate).id,
        "remix": alone.enqueue(PHOTA, metadata={"user": "43"}).id,
    }
    alone.advance(failed.id, lambda job, now: _failed(job, Code.MODERATED, now))
    alone.advance(unknown.id, lambda job, now: transitions.claimed(job, "a-worker", now))
    alone.advance(unknown.id, lambda job, now: transitions.submitting(job, "a-worker", now))
    alone.advance(unknown.id, lambda job, now: transitions.canceled(job, now))
    return ids


def _failed(job: Any, code: Code, now: datetime) -> Any:
    failure = Failure(code, "the provider refused it")
    return replace(job, status=Status.FAILED, error=failure, finished_at=now, updated_at=now, wake_at=None)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), {"failed", "unknown", "queued", "remix"}),
        (("--status", "queued"), {"queued", "remix"}),
        (("--status", "failed", "--status", "canceled"), {"failed", "unknown"}),
        (("--operation", "phota.remix"), {"remix"}),
        (("--code", "moderated"), {"failed"}),
        (("--code", "deadline"), set()),
        (("--metadata", "user=42"), {"failed", "unknown"}),
        (("--metadata", "user=42", "--metadata", "order=17"), {"failed"}),
        (("--unknown",), {"unknown"}),
        (("--since", "1h"), {"failed", "unknown", "queued", "remix"}),
        (("--since", "0s"), set()),
        (("--since", "2100-01-01"), set()),
        (
            ("--since", f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M}"),
            {"failed", "unknown", "queued", "remix"},
        ),
        (("--status", "queued", "--metadata", "user=43", "--since", "1h"), {"remix"}),
    ],
)
def test_only_jobs_that_match_every_filter_are_listed(
    darkroom: Command, jobs_by_name: Mapping[str, str], options: tuple[str, ...], names: set[str]
) -> None:
    listed = [json.loads(line)["id"] for line in darkroom("list", "--json", *options).out.splitlines()]
    assert set(listed) == {jobs_by_name[name] for name in names}
    assert len(listed) == len(names)


def test_a_line_has_status_age_images_cost_and_error_code(darkroom: Command, jobs_by_name: Mapping[str, str]) -> None:
    header, *lines = darkroom("list").lines
    assert header.split() == ["job", "operation", "status", "age", "images", "cost", "code"]
    cells = {line.split()[0]: line.split() for line in lines}
    assert cells[jobs_by_name["failed"]][1:3] == ["deepmode.generate", "failed"]
    assert cells[jobs_by_name["failed"]][-3:] == ["0/1", "nothing", "moderated"]
    assert cells[jobs_by_name["unknown"]][-2:] == ["unknown", "outcome_unknown"]
    assert not [line for line in (header, *lines) if line != line.rstrip()]


def test_no_more_than_the_limit_are_listed(darkroom: Command, jobs_by_name: Mapping[str, str]) -> None:
    assert len(darkroom("list", "--json", "--limit", "3").lines) == 3
    assert len(darkroom("list", "--json", "--limit", "1", "--status", "queued").lines) == 1


def test_an_empty_list_prints_nothing_on_stdout(darkroom: Command, alone: Darkroom) -> None:
    ended = darkroom("list")
    assert (ended.code, ended.out, ended.err) == (0, "", "no job matches\n")
    assert darkroom("list", "--json").out == ""
    assert darkroom("watch").code == 0
