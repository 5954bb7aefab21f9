"""The requests of the demo, and when its result is good; tests/test_demo.py runs it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args, get_origin

import pytest

from jobs import Job, Status, providers
from jobs.cli.demo_requests import JOBS_PER_OPERATION, demo_requests
from jobs.cli.demo_result import Result, unreadable_keys
from jobs.embedded.stack import Stack
from jobs.providers import deepmode
from jobs.request import LocalImage, Request


@pytest.fixture(scope="module")
def job(stack: Stack) -> Job:
    """A job that succeeded."""
    enqueued = stack.darkroom.enqueue(deepmode.Generate(model_id="b8a9", prompt="a lake", num_images=2))
    return stack.darkroom.wait(enqueued.id, timeout=20)


def requests() -> Iterator[Request]:
    return demo_requests(providers.names())


def test_there_are_several_requests_for_each_operation() -> None:
    assert Counter(request.operation for request in requests()) == dict.fromkeys(
        providers.operation_names(), JOBS_PER_OPERATION
    )


def test_only_operations_of_the_given_providers_are_requested() -> None:
    assert {request.operation for request in demo_requests(["phota"])} == {"phota.remix"}
    assert list(demo_requests([])) == []


def test_each_field_with_two_values_is_requested_with_both() -> None:
    met: dict[tuple[str, str], set[object]] = defaultdict(set)
    for request in requests():
        for name, field in type(request).model_fields.items():
            positions = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            if field.annotation is bool or len(positions) == 2:
                met[request.operation, name].add(getattr(request, name))
    assert met
    assert all(len(values) == 2 for values in met.values())


def test_every_image_that_is_sent_is_different() -> None:
    first = {
        request.operation: [image.content for _, _, image in request.images() if isinstance(image, LocalImage)]
        for request in requests()
    }
    sent = [content for contents in first.values() for content in contents]
    assert sent
    assert len(set(sent)) == len(sent)


def test_a_result_is_good_when_all_jobs_succeeded_and_all_images_were_read_back(stack: Stack, job: Job) -> None:
    result = Result([job], {job.id: "callback"}, list(unreadable_keys(stack.darkroom, job)))
    assert result.is_good
    assert result.summary() == {
        "jobs": 1,
        "succeeded": 1,
        "images": 2,
        "operations": {"deepmode.generate": {"jobs": 1, "succeeded": 1}},
    }


def test_a_result_with_a_failed_job_is_not_good(job: Job) -> None:
    failed = replace(job, status=Status.FAILED, artifacts=())
    result = Result([job, failed], {}, [])
    assert not result.is_good
    assert result.summary()["operations"] == {"deepmode.generate": {"jobs": 2, "succeeded": 1}}


def test_a_result_is_not_good_when_an_image_changed_or_is_missing(stack: Stack, job: Job) -> None:
    changed, gone = (stack.images / artifact.key for artifact in job.artifacts)
    before = [file.read_bytes() for file in (changed, gone)]
    changed.write_bytes(b"another image")
    gone.unlink()
    try:
        broken = list(unreadable_keys(stack.darkroom, job))
    finally:
        for file, content in zip((changed, gone), before, strict=True):
            file.write_bytes(content)
    assert broken == [artifact.key for artifact in job.artifacts]
    assert not Result([job], {}, broken).is_good


def test_a_result_without_jobs_is_not_good() -> None:
    assert not Result([], {}, []).is_good
