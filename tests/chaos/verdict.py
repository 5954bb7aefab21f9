"""What a run says: the jobs' records, the vendors' books and the bucket, held against each other.

**paid twice**: a job for which the vendors' books show more than one submission that was charged and not given back. Sent again
under the vendor's own key it is one submission.

**lost**, any of:
- a job that `enqueue` accepted and whose record is gone;
- a picture of a succeeded job that is neither stored nor named in `missing`, or whose stored bytes are not those that the vendor
  made; and one that is in `missing` because of us: the storage was away, or its URL died while we were dead. (A picture that the
  vendor held back, or that could not be rescued from an answer whose worker was killed while it kept it, is named and not lost.)
- a picture of a job that failed although its result was reported: a callback with the result was answered 2xx, or the
  ledger says that an attempt succeeded.

**stuck**: not final, or images still pending, when the run has ended, every fault is over, and the deadline is past.

**unexplained**: a job with an end that nobody saw although somebody could have: its answer was not dropped by the vendor and
its worker was not killed over it; or, charged and not dropped, it could have been called back or asked for by its key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.attempt import Outcome, Recovery
from jobs.job import Job, Status
from jobs.report import Code

from .recovery import Death, Rescue, in_flight_at_a_kill

Book = Mapping[str, Any]

#: a vendor answers a submission so, or not at all, and nobody can tell whether it did the work
_OURS = (Code.STORAGE_ERROR, Code.RESULT_EXPIRED)
_LAST_STEPS = ("completed", "succeed")


@dataclass(frozen=True)
class Evidence:
    """All that is known at the end of a run."""

    #: the accepted jobs by prompt; None for one whose record is gone
    jobs: Mapping[str, Job | None]
    #: the vendors' books, with the digest of each picture
    books: Sequence[Book]
    #: SHA-256 of what lies in the bucket, by key without prefix
    bucket: Mapping[str, str]
    deaths: Sequence[Death]
    recoveries: Sequence[Rescue]


@dataclass(frozen=True)
class Verdict:
    """The table of a run; the lists name the prompts."""

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
        """Whether every promise was kept; how fast dead workers were found is judged apart."""
        return not (self.paid_twice or self.lost or self.stuck or self.unexplained)


def judged(evidence: Evidence) -> Verdict:
    """The verdict on a run."""
    found = [job for job in evidence.jobs.values() if job is not None]
    finals = [job for job in found if job.status.final]
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
    """One job, and what the vendors' books say of it."""

    prompt: str
    job: Job | None
    books: Sequence[Book]
    evidence: Evidence

    @property
    def charged(self) -> list[Book]:
        return [book for book in self.books if book["charged"] and not book["refunded"]]

    @property
    def stuck(self) -> bool:
        return self.job is not None and (not self.job.status.final or bool(self.job.pending))

    @property
    def lost(self) -> bool:
        if self.job is None:
            return True
        if self.job.status is Status.SUCCEEDED:
            return any(self._picture_lost(self.job, index) for index in range(self.job.images_expected))
        return self.job.status is Status.FAILED and self._reported and not self._held_back(self.job)

    def _picture_lost(self, job: Job, index: int) -> bool:
        made = [digest for book in self.charged for place, digest in enumerate(book["images"]) if place == index]
        for artifact in job.artifacts:
            if artifact.index == index:
                return self.evidence.bucket.get(artifact.key) != artifact.sha256 or artifact.sha256 not in made
        missing = [missing for missing in job.missing if missing.index == index]
        killed = in_flight_at_a_kill(job, self.evidence.deaths)
        return not missing or (missing[0].code in _OURS and not killed)

    @property
    def _reported(self) -> bool:
        """Whether the result came to us: by a callback that we answered 2xx, or as the ledger says."""
        posts = [post for book in self.charged for post in book["callbacks"]]
        accepted = any(200 <= post["status"] < 300 and post["step"] in _LAST_STEPS for post in posts)
        job = self.job
        return accepted or (job is not None and any(one.outcome is Outcome.SUCCEEDED for one in job.attempts))

    @staticmethod
    def _held_back(job: Job) -> bool:
        return bool(job.missing) and all(missing.code not in _OURS for missing in job.missing)

    @property
    def unexplained(self) -> bool:
        job = self.job
        if job is None or not job.status.final or not _in_doubt(job):
            return False
        dropped = any(book["dropped"] for book in self.books)
        recoverable = any(attempt.recovery is not Recovery.NONE for attempt in job.attempts)
        if recoverable and self.charged and not dropped:
            return True
        return not dropped and not in_flight_at_a_kill(job, self.evidence.deaths)
