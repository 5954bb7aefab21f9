"""What the demo asks for, and when it is content; the run itself is in tests/test_demo.py."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Literal, get_args, get_origin

import pytest

from jobs import Job, Status, providers
from jobs.cli.demo import JOBS_PER_OPERATION, Result, requests, unreadable
from jobs.embedded.stack import Stack
from jobs.providers import deepmode
from jobs.request import LocalImage


@pytest.fixture(scope="module")
def job(stack: Stack) -> Job:
    """A job that succeeded."""
    enqueued = stack.darkroom.enqueue(deepmode.Generate(model_id="b8a9", prompt="a lake", num_images=2))
    return stack.darkroom.wait(enqueued.id, timeout=20)


def test_several_jobs_of_each_operation_are_asked_for() -> None:
    assert Counter(request.operation for request in requests()) == dict.fromkeys(
        providers.operation_names(), JOBS_PER_OPERATION
    )


def test_each_two_way_switch_is_met_in_both_positions() -> None:
    met: dict[tuple[str, str], set[object]] = defaultdict(set)
    for request in requests():
        for name, field in type(request).model_fields.items():
            positions = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            if field.annotation is bool or len(positions) == 2:
                met[request.operation, name].add(getattr(request, name))
    assert met
    assert all(len(values) == 2 for values in met.values())


def test_every_picture_that_is_sent_is_another() -> None:
    first = {
        request.operation: [image.content for _, _, image in request.images() if isinstance(image, LocalImage)]
        for request in requests()
    }
    sent = [content for contents in first.values() for content in contents]
    assert sent
    assert len(set(sent)) == len(sent)


def test_it_is_content_when_all_succeeded_and_was_read_back(stack: Stack, job: Job) -> None:
    result = Result([job], {job.id: "callback"}, list(unreadable(stack.darkroom, job)))
    assert result.good
    assert result.summary() == {
        "jobs": 1,
        "succeeded": 1,
        "images": 2,
        "operations": {"deepmode.generate": {"jobs": 1, "succeeded": 1}},
    }


def test_it_is_not_content_with_a_failed_job(job: Job) -> None:
    failed = replace(job, status=Status.FAILED, artifacts=())
    result = Result([job, failed], {}, [])
    assert not result.good
    assert result.summary()["operations"] == {"deepmode.generate": {"jobs": 2, "succeeded": 1}}


def test_it_is_not_content_when_a_picture_changed_or_is_gone(stack: Stack, job: Job) -> None:
    changed, gone = (stack.images / artifact.key for artifact in job.artifacts)
    before = [file.read_bytes() for file in (changed, gone)]
    changed.write_bytes(b"another picture")
    gone.unlink()
    try:
        broken = list(unreadable(stack.darkroom, job))
    finally:
        for file, content in zip((changed, gone), before, strict=True):
            file.write_bytes(content)
    assert broken == [artifact.key for artifact in job.artifacts]
    assert not Result([job], {}, broken).good
