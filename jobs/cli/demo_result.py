"""What `darkroom demo` ended with, and whether that is good."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ..attempt import Recovery
from ..darkroom import Darkroom
from ..embedded.stack import Stack
from ..errors import StorageError
from ..job import Job, Status


@dataclass(frozen=True)
class Result:
    """What the demo ended with."""

    jobs: Sequence[Job]
    #: how the result of each job arrived, by its id: `answer`, `poll` or `callback`
    arrivals: Mapping[str, str]
    #: keys of stored images that could not be read back as they were recorded
    unreadable: Sequence[str]

    @property
    def is_good(self) -> bool:
        """Whether every job succeeded with all its images, and every image could be read back."""
        complete = (job.status is Status.SUCCEEDED and not job.missing and job.artifacts for job in self.jobs)
        return bool(self.jobs) and all(complete) and not self.unreadable

    @property
    def images(self) -> int:
        """How many images were stored and read back."""
        return sum(len(job.artifacts) for job in self.jobs) - len(self.unreadable)

    def summary(self) -> dict[str, Any]:
        """The line that `--json` prints."""
        succeeded = [job for job in self.jobs if job.status is Status.SUCCEEDED]
        all_of, succeeded_of = (Counter(job.operation for job in some) for some in (self.jobs, succeeded))
        return {
            "jobs": len(self.jobs),
            "succeeded": len(succeeded),
            "images": self.images,
            "operations": {name: {"jobs": number, "succeeded": succeeded_of[name]} for name, number in all_of.items()},
        }


def unreadable_keys(darkroom: Darkroom, job: Job) -> Iterator[str]:
    """The keys of the job's images that are not in the storage as the record says."""
    for artifact in job.artifacts:
        try:
            same = hashlib.sha256(darkroom.storage.get(artifact.key)).hexdigest() == artifact.sha256
        except StorageError:
            same = False
        if not same:
            yield artifact.key


def arrivals(stack: Stack, jobs: Iterable[Job]) -> dict[str, str]:
    """How the result of each job arrived: with the answer, by a callback, or by a poll that came first."""
    ledger = httpx.get(f"{stack.sandbox_url}/_sandbox/ledger?digests=0", trust_env=False, timeout=10).json()
    #: when the last callback of a task was answered, in seconds since 1970
    called_back = {
        submission["task_id"]: callback["at"]
        for submission in ledger["submissions"]
        for callback in submission["callbacks"]
        if callback["status"] == 200
    }
    found = {}
    for job in jobs:
        at = called_back.get(job.attempt.external_id or "") if job.attempt else None
        stored = next((event.at.timestamp() for event in job.timeline if event.what.startswith("storing")), 0.0)
        if job.attempt is None or not any(event.what.startswith("running") for event in job.timeline):
            found[job.id] = "answer"
        elif not job.attempt.polled or (
            job.attempt.recovery is Recovery.CALLBACK and at is not None and at <= stored + 0.25
        ):
            found[job.id] = "callback"
        else:
            found[job.id] = "poll"
    return found
