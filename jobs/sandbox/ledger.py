"""What was submitted, what it cost, and what was served: the sandbox's own record, to compare with Darkroom's."""

import base64
import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from .images import Input, Recipe, render
from .journal import Event, Journal

#: How a submission ended for the client: not yet, with its answer, without one, or refused before any work.
Outcome = Literal["pending", "answered", "dropped", "refused"]


@dataclass(frozen=True)
class Submission:
    """One accepted or refused request for images."""

    #: From 1, in order of arrival.
    number: int
    #: Which vendor received it, as `deepmode`.
    vendor: str
    #: Our name of the service, as `deepmode.generate`.
    operation: str
    #: Arrival, seconds since 1970 by the host's clock.
    received_at: float
    #: The vendor's id of the work; the client may never see it.
    task_id: str = ""
    #: When the work is done, seconds since 1970.
    ready_at: float = 0.0
    #: Scheme and authority under which the client reached the sandbox; result URLs are built on it.
    base_url: str = ""
    recipe: Recipe | None = None
    #: How many images were asked for, and how many there are.
    asked: int = 0
    images: int = 0
    callback_url: str = ""
    client_request_id: str = ""
    charged: bool = False
    amount: float = 0.0
    #: `credit`, `USD`, `token`; `task` where the vendor's price is not public.
    unit: str = ""
    refunded: bool = False
    outcome: Outcome = "pending"
    #: HTTP status that was, or would have been, answered.
    status: int = 0
    #: How it deviates from a good answer: names of the faults that were applied.
    faults: Mapping[str, str] = field(default_factory=dict)
    #: The vendor's own particulars, as `model_id`; JSON values.
    details: Mapping[str, Any] = field(default_factory=dict)

    def file_name(self, index: int, extension: str) -> str:
        """The name of one result file, the same after a restart."""
        return f"{uuid.uuid5(uuid.NAMESPACE_URL, f'{self.task_id}/{index}')}.{extension}"

    def image_id(self, index: int) -> str:
        """The vendor's opaque id of one image: 24 hexadecimal digits."""
        return hashlib.sha256(f"{self.task_id}/{index}".encode()).hexdigest()[:24]

    def image(self, index: int) -> bytes:
        """The bytes of one result."""
        assert self.recipe is not None
        return render(self.recipe, self.task_id, index)

    def view(self, *, digests: bool) -> dict[str, Any]:
        """The submission as the control API shows it; with `digests`, the SHA-256 of each result."""
        hidden = {"recipe", "callback_url", "images", "received_at", "ready_at", "base_url"}
        shown = {name: value for name, value in asdict(self).items() if name not in hidden}
        return shown | {
            "at": datetime.fromtimestamp(self.received_at, UTC).isoformat(),
            "prompt": self.recipe.prompt if self.recipe else "",
            "dropped": self.outcome == "dropped",
            "callback_sha256": digest_of(self.callback_url.encode()) if self.callback_url else None,
            "made": self.images,
            "images": [digest_of(self.image(index)) for index in range(self.images)] if digests else None,
        }

    def packed(self) -> dict[str, Any]:
        """The submission as JSON values, for the journal."""
        fields = asdict(self)
        for one in fields["recipe"]["inputs"] if self.recipe else ():
            one["thumbnail"] = base64.b64encode(one["thumbnail"]).decode()
        return fields

    @classmethod
    def unpacked(cls, fields: Mapping[str, Any]) -> "Submission":
        """The submission that `packed` made these values of."""
        fields = dict(fields)
        if "provider" in fields:  # as state files of earlier versions call it
            fields["vendor"] = fields.pop("provider")
        if recipe := fields["recipe"]:
            inputs = tuple(Input(**one | {"thumbnail": base64.b64decode(one["thumbnail"])}) for one in recipe["inputs"])
            fields["recipe"] = Recipe(**recipe | {"inputs": inputs})
        return cls(**fields)


@dataclass(frozen=True)
class Serving:
    """One answer of the file host, or one image inside an answer."""

    task_id: str
    index: int
    status: int
    size: int
    #: Of the whole body, also when only a part of it left.
    sha256: str
    #: Whether the whole body was sent and is the submission's own image.
    genuine: bool
    inline: bool = False


class Ledger:
    """All submissions and servings, written to the journal as they happen."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last_number = 0
        self._submissions: dict[int, Submission] = {}
        self._by_task: dict[str, int] = {}
        self._by_image: dict[str, tuple[int, int]] = {}
        self._by_request_id: dict[tuple[str, str], int] = {}
        self._servings: list[Serving] = []

    def next_number(self) -> int:
        return self._last_number + 1

    def add(self, submission: Submission) -> Submission:
        """Enter a new submission."""
        self._journal.write("submission", **submission.packed())
        return self._keep(submission)

    def change(self, submission: Submission, **fields: Any) -> Submission:
        """Enter what became of a submission; one that a reset forgot stays forgotten."""
        number = submission.number
        if number not in self._submissions:
            return replace(submission, **fields)
        self._journal.write("change", number=number, fields=fields)
        return self._keep(replace(self._submissions[number], **fields))

    def record_serving(self, serving: Serving) -> None:
        self._journal.write("served", **asdict(serving))
        self._servings.append(serving)

    def replay(self, event: Event) -> None:
        """Take up one event of an earlier life."""
        fields = {name: value for name, value in event.items() if name != "event"}
        match event["event"]:
            case "submission":
                self._keep(Submission.unpacked(fields))
            case "change":
                self._keep(replace(self._submissions[fields["number"]], **fields["fields"]))
            case "served":
                self._servings.append(Serving(**fields))

    def submission(self, number: int) -> Submission:
        return self._submissions[number]

    def by_task(self, task_id: str) -> Submission | None:
        return self._submissions.get(self._by_task.get(task_id, 0))

    def by_image(self, name: str) -> tuple[Submission, int] | None:
        """The submission and index behind an image id or a file name without its extension."""
        number, index = self._by_image.get(name, (0, 0))
        return (self._submissions[number], index) if number else None

    def by_request_id(self, vendor: str, client_request_id: str) -> Submission | None:
        return self._submissions.get(self._by_request_id.get((vendor, client_request_id), 0))

    def submissions(self) -> list[Submission]:
        return list(self._submissions.values())

    def servings(self) -> list[Serving]:
        return list(self._servings)

    def clear(self) -> None:
        for entries in (self._submissions, self._by_task, self._by_image, self._by_request_id, self._servings):
            entries.clear()

    def _keep(self, submission: Submission) -> Submission:
        self._submissions[submission.number] = submission
        self._last_number = max(self._last_number, submission.number)
        if submission.task_id:
            self._by_task[submission.task_id] = submission.number
        if submission.client_request_id and submission.task_id:
            self._by_request_id.setdefault((submission.vendor, submission.client_request_id), submission.number)
        for index in range(submission.images):
            for name in (submission.image_id(index), submission.file_name(index, "")[:-1]):
                self._by_image[name] = submission.number, index
        return submission


def digest_of(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def totals(submissions: Iterable[Submission]) -> dict[str, dict[str, float]]:
    """What each vendor charged, by unit, without what it gave back."""
    sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in submissions:
        if one.charged and not one.refunded:
            sums[one.vendor][one.unit] += one.amount
    return {vendor: {unit: round(amount, 2) for unit, amount in units.items()} for vendor, units in sums.items()}
