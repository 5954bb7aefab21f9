"""The verdict on a run: the jobs' records, the providers' ledger and the bucket are compared.

**paid twice**: a job for which the providers' ledger has more than one submission that was charged and not refunded. Sent again with
the provider's idempotency key it is one submission.

**lost**, any of:
- a job that `enqueue` accepted and whose record is gone;
- an image of a succeeded job that is neither stored nor in `missing`, or whose stored bytes are not those that the provider made;
  and one that is in `missing` because of us: the storage was away, or its URL expired while no worker ran. (An image that the provider
  withheld, or that was in an answer whose worker was killed while it stored it, is in `missing` and not lost.)
- an image of a job that failed although its result was reported: a callback with the result was answered 2xx, or the
  ledger says that an attempt succeeded.

**stuck**: not final, or images still pending, when the run has ended, every fault is over, and the deadline is past.

**unexplained**: a job with an unknown outcome that could be known: the provider did not drop its answer, and its worker was not
killed meanwhile; or it was charged, and could have been called back or looked up by its key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.attempt import Outcome, Recovery
from jobs.job import Job, Status
from jobs.report import Code

from .recovery import Death, JobRecovery, in_flight_at_a_kill

Book = Mapping[str, Any]

#: the last steps of a submission that the provider answered; without one of them nobody can tell whether it did the work
_OURS = (Code.STORAGE_ERROR, Code.RESULT_EXPIRED)
_LAST_STEPS = ("completed", "succeed")


@dataclass(frozen=True)
class Evidence:
    """Everything that is known at the end of a run."""

    #: the accepted jobs by prompt; None if the record is gone
    jobs: Mapping[str, Job | None]
    #: the providers' ledger, with the SHA-256 of each image
    books: Sequence[Book]
    #: the SHA-256 of each object in the bucket, by key without prefix
    bucket: Mapping[str, str]
    deaths: Sequence[Death]
    recoveries: Sequence[JobRecovery]


@dataclass(frozen=True)
class Verdict:
    """The figures of a run; the lists hold prompts."""

    jobs: int
    final: int
    succeeded: int
    failed: Mapping[str, int]
    unknown: int
    images: int
    paid_twice: tuple[str, ...]
    lost: tuple[str, ...]
    stuck: tuple[str, ...]
    unexplained: tuple[str, ...]
    recoveries: int
    slowest_recovery: float
    p99_recovery: float

    @property
    def clean(self) -> bool:
        """Whether every promise was kept, apart from the time in which dead workers were found."""
        return not (self.paid_twice or self.lost or self.stuck or self.unexplained)


def judge(evidence: Evidence) -> Verdict:
    """Compare the evidence, and return the verdict on a run."""
    found = [job for job in evidence.jobs.values() if job is not None]
    finals = [job for job in found if job.status.is_final]
    books = _by_prompt(evidence.books)
    cases = [_Case(prompt, job, books.get(prompt, ()), evidence) for prompt, job in evidence.jobs.items()]
    times = sorted(recovery.seconds for recovery in evidence.recoveries)
    return Verdict(
        jobs=len(evidence.jobs),
        final=len(finals),
        succeeded=sum(job.status is Status.SUCCEEDED for job in finals),
        failed=Counter(job.error.code.value for job in finals if job.error),
        unknown=sum(_in_doubt(job) for job in found),
        images=sum(len(job.artifacts) for job in found),
        paid_twice=tuple(case.prompt for case in cases if len(case.charged) > 1),
        lost=tuple(case.prompt for case in cases if case.lost),
        stuck=tuple(case.prompt for case in cases if case.stuck),
        unexplained=tuple(case.prompt for case in cases if case.unexplained),
        recoveries=len(times),
        slowest_recovery=times[-1] if times else 0.0,
        p99_recovery=times[min(int(len(times) * 0.99), len(times) - 1)] if times else 0.0,
    )


def _by_prompt(books: Sequence[Book]) -> Mapping[str, list[Book]]:
    found: dict[str, list[Book]] = {}
    for book in books:
        found.setdefault(book["prompt"], []).append(book)
    return found


def _in_doubt(job: Job) -> bool:
    return job.has_unknown and job.status is not Status.SUCCEEDED


@dataclass(frozen=True)
class _Case:
    """One job, and its submissions in the providers' ledger."""

    prompt: str
    job: Job | None
    books: Sequence[Book]
    evidence: Evidence

    @property
    def charged(self) -> list[Book]:
        return [book for book in self.books if book["charged"] and not book["refunded"]]

    @property
    def stuck(self) -> bool:
        return self.job is not None and (not self.job.status.is_final or bool(self.job.pending))

    @property
    def lost(self) -> bool:
        if self.job is None:
            return True
        if self.job.status is Status.SUCCEEDED:
            return any(self._is_image_lost(self.job, index) for index in range(self.job.images_expected))
        return self.job.status is Status.FAILED and self._reported and not self._is_withheld(self.job)

    def _is_image_lost(self, job: Job, index: int) -> bool:
        made = [digest for book in self.charged for place, digest in enumerate(book["images"]) if place == index]
        for artifact in job.artifacts:
            if artifact.index == index:
                return self.evidence.bucket.get(artifact.key) != artifact.sha256 or artifact.sha256 not in made
        missing = [missing for missing in job.missing if missing.index == index]
        killed = in_flight_at_a_kill(job, self.evidence.deaths)
        return not missing or (missing[0].code in _OURS and not killed)

    @property
    def _reported(self) -> bool:
        """Whether the result was reported to us: by a callback that we answered 2xx, or according to the job's ledger."""
        posts = [post for book in self.charged for post in book["callbacks"]]
        accepted = any(200 <= post["status"] < 300 and post["step"] in _LAST_STEPS for post in posts)
        job = self.job
        return accepted or (job is not None and any(one.outcome is Outcome.SUCCEEDED for one in job.attempts))

    @staticmethod
    def _is_withheld(job: Job) -> bool:
        return bool(job.missing) and all(missing.code not in _OURS for missing in job.missing)

    @property
    def unexplained(self) -> bool:
        job = self.job
        if job is None or not job.status.is_final or not _in_doubt(job):
            return False
        dropped = any(book["dropped"] for book in self.books)
        recoverable = any(attempt.recovery is not Recovery.NONE for attempt in job.attempts)
        if recoverable and self.charged and not dropped:
            return True
        return not dropped and not in_flight_at_a_kill(job, self.evidence.deaths)
