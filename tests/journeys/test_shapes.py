"""Every operation in every way of delivering its result, through real processes: charged once, stored byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from jobs import Charged, Job, Outcome, Status
from jobs.providers import aimlapi, chainhub, deepmode, phota
from jobs.request import Request

pytestmark = pytest.mark.journey

PROMPT = "a lake at dawn, "


@dataclass(frozen=True)
class Shape:
    """One operation whose provider delivers the result in one way."""

    name: str
    site: str
    make: Callable[[bytes, str], Request]
    faults: tuple[str, ...] = ()
    images: int = 1
    content_type: str = "image/jpeg"
    #: amount and unit; None if the price is unknown
    cost: tuple[float, str] | None = None
    #: whether the provider accepts first and delivers the result later
    later: bool = False
    #: whether the result comes by callback
    called_back: bool = False


def generate(images: int) -> Callable[[bytes, str], Request]:
    return lambda _, prompt: deepmode.Generate(model_id="b8a9", prompt=prompt, num_images=images, ratio="square")


def face_id(mode: str) -> Callable[[bytes, str], Request]:
    return lambda png, prompt: deepmode.FaceIdRemix(
        identity_image=png, artwork_image=png, mask_image=png, prompt=prompt, mode=mode
    )


def ideogram(images: int) -> Callable[[bytes, str], Request]:
    return lambda png, prompt: chainhub.IdeogramRemix(image_file=png, prompt=prompt, num_images=images, seed=7)


def remix(
    mode: str, images: int = 2, kind: str = "jpg", profiles: list[str] | None = None
) -> Callable[[bytes, str], Request]:
    return lambda png, prompt: phota.Remix(
        input_image=png,
        reference_image="https://example.com/style.jpg",
        prompt=prompt,
        num_output_images=images,
        output_format=kind,
        response_mode=mode,
        profile_ids=profiles,
    )


def reve(*, by_url: bool) -> Callable[[bytes, str], Request]:
    return lambda png, prompt: aimlapi.ReveRemix(
        image_urls=[png, "https://example.com/mug.jpg"], prompt=prompt, convert_base64_to_url=by_url
    )


CREDIT = (1.0, "credit")
TOKENS = (210000.0, "token")

SHAPES = (
    Shape("DeepMode's callback", "calling", generate(3), images=3, cost=CREDIT, later=True, called_back=True),
    Shape(
        "DeepMode's callback as one flat image",
        "calling",
        generate(1),
        ("callback-flat@deepmode*1",),
        cost=CREDIT,
        later=True,
        called_back=True,
    ),
    Shape(
        "DeepMode's callback before its answer",
        "calling",
        generate(2),
        ("callback-first@deepmode*1",),
        images=2,
        cost=CREDIT,
        called_back=True,
    ),
    Shape(
        "DeepMode's callback twice",
        "calling",
        generate(1),
        ("callback-twice@deepmode*1",),
        cost=CREDIT,
        later=True,
        called_back=True,
    ),
    Shape("DeepMode's sync answer", "quiet", generate(2), images=2, cost=CREDIT),
    Shape("DeepMode's face of a person, at once", "calling", face_id("sync"), cost=CREDIT),
    Shape("DeepMode's face of a person, polled", "quiet", face_id("async"), cost=CREDIT, later=True),
    Shape(
        "DeepMode's face of a person, by callback",
        "calling",
        face_id("async"),
        cost=CREDIT,
        later=True,
        called_back=True,
    ),
    Shape("ChainHub's envelope, polled", "quiet", ideogram(2), images=2, later=True),
    Shape("ChainHub's poll without data", "quiet", ideogram(1), ("no-data@chainhub*1",), later=True),
    Shape("ChainHub's enveloped updates", "calling", ideogram(2), images=2, later=True, called_back=True),
    Shape(
        "ChainHub's flat updates", "calling", ideogram(1), ("updates-flat@chainhub*1",), later=True, called_back=True
    ),
    Shape(
        "ChainHub's updates in reverse, thrice",
        "calling",
        ideogram(2),
        ("updates-shuffled@chainhub*1", "updates-repeated@chainhub*1"),
        images=2,
        later=True,
        called_back=True,
    ),
    Shape(
        "ChainHub's flat updates in reverse",
        "calling",
        ideogram(1),
        ("updates-flat@chainhub*1", "updates-shuffled@chainhub*1"),
        later=True,
        called_back=True,
    ),
    Shape(
        "ChainHub's updates in other words",
        "calling",
        ideogram(1),
        ("other-words@chainhub*1",),
        later=True,
        called_back=True,
    ),
    Shape("ChainHub's sync list", "quiet", ideogram(3), ("sync-body@chainhub*1",), images=3),
    Shape("Phota's download_urls", "quiet", remix("urls"), images=2, cost=(0.24, "usd")),
    Shape("Phota's recognized profile", "quiet", remix("urls", profiles=["abc123"]), images=2, cost=(0.3, "usd")),
    Shape("Phota's URLs in images", "quiet", remix("urls"), ("images-as-urls@phota*1",), images=2, cost=(0.24, "usd")),
    Shape("Phota's bytes", "quiet", remix("bytes", kind="png"), images=2, content_type="image/png", cost=(0.24, "usd")),
    Shape(
        "Phota's job, by callback", "calling", remix("urls"), images=2, cost=(0.24, "usd"), later=True, called_back=True
    ),
    Shape(
        "Phota's job, polled",
        "calling",
        remix("urls"),
        ("callback-never@phota*1",),
        images=2,
        cost=(0.24, "usd"),
        later=True,
    ),
    Shape("AIML's URL", "quiet", reve(by_url=True), cost=TOKENS, content_type="image/png"),
    Shape("AIML's base64", "quiet", reve(by_url=False), cost=TOKENS, content_type="image/png"),
    Shape(
        "AIML's credits_used",
        "calling",
        reve(by_url=True),
        ("credits-used@aimlapi*1",),
        cost=TOKENS,
        content_type="image/png",
    ),
    Shape("AIML's answer without meta", "calling", reve(by_url=True), ("no-meta@aimlapi*1",), content_type="image/png"),
    Shape(
        "AIML's answer without usage", "quiet", reve(by_url=False), ("no-usage@aimlapi*1",), content_type="image/png"
    ),
    Shape("AIML's 201", "quiet", reve(by_url=True), ("created@aimlapi*1",), cost=TOKENS, content_type="image/png"),
)


@dataclass(frozen=True)
class Ending:
    """The final job of a shape, and its submission in the provider's ledger."""

    job: Job
    submissions: list[dict[str, Any]]


@pytest.fixture(scope="module")
def endings(running_sites: Mapping[str, Any], vendors: Any, picture: bytes) -> Mapping[str, Ending]:
    """All shapes at once: each is enqueued once the one before was submitted, so that it meets its own faults."""
    jobs = {
        shape.name: running_sites[shape.site].enqueue(shape.make(picture, PROMPT + shape.name), *shape.faults)
        for shape in SHAPES
    }
    finals = {shape.name: running_sites[shape.site].wait(jobs[shape.name]) for shape in SHAPES}
    return {name: Ending(job, vendors.submissions(PROMPT + name)) for name, job in finals.items()}


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.name)
def shape(request: pytest.FixtureRequest) -> Shape:
    """One shape."""
    return request.param


@pytest.fixture
def ending(shape: Shape, endings: Mapping[str, Ending]) -> Ending:
    """Its final job."""
    return endings[shape.name]


def test_the_job_succeeds_with_every_image(shape: Shape, ending: Ending) -> None:
    job = ending.job
    assert job.status is Status.SUCCEEDED, (job.error, job.timeline)
    assert job.error is None
    assert job.missing == ()
    assert [artifact.index for artifact in job.artifacts] == list(range(shape.images))
    assert {artifact.content_type for artifact in job.artifacts} == {shape.content_type}


def test_the_provider_charged_once_and_the_ledger_has_the_cost(shape: Shape, ending: Ending) -> None:
    (submission,) = ending.submissions
    (attempt,) = ending.job.attempts
    assert submission["charged"]
    assert not submission["refunded"]
    assert (attempt.outcome, attempt.charged) == (Outcome.SUCCEEDED, Charged.YES)
    assert attempt.times == 1
    told = (attempt.cost.amount, attempt.cost.unit.value) if attempt.cost else None
    assert told == shape.cost


def test_the_result_comes_in_the_way_of_its_shape(shape: Shape, ending: Ending) -> None:
    (submission,) = ending.submissions
    steps = [event.what for event in ending.job.timeline]
    assert steps[:2] == ["queued", "submitting 1"]
    assert "storing 1" in steps
    assert ("running 1" in steps) is shape.later
    assert bool(submission["callback_sha256"]) is (shape.called_back or shape.name == "Phota's job, polled")
    assert {posted["status"] for posted in submission["callbacks"]} == ({200} if shape.called_back else set())


def test_each_stored_byte_is_the_one_that_the_provider_served(
    shape: Shape, ending: Ending, vendors: Any, bucket: Any, sha256_of: Callable[[bytes], str]
) -> None:
    (submission,) = ending.submissions
    served = vendors.served(submission["task_id"])
    assert sorted(served) == list(range(shape.images))
    for artifact in ending.job.artifacts:
        stored = bucket.read(artifact.key)
        assert sha256_of(stored["Body"]) == artifact.sha256 == served[artifact.index]
        assert len(stored["Body"]) == artifact.size
        assert stored["ContentType"] == artifact.content_type


def test_each_object_has_its_type_and_metadata(shape: Shape, ending: Ending, bucket: Any) -> None:
    for artifact in ending.job.artifacts:
        assert bucket.read(artifact.key)["Metadata"] == {
            "job-id": ending.job.id,
            "operation": ending.job.operation,
            "provider": ending.job.provider,
            "attempt": "1",
            "sha256": artifact.sha256,
            "digital-source-type": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
        }


def test_nothing_but_the_images_was_stored(shape: Shape, ending: Ending, bucket: Any) -> None:
    folder = ending.job.artifacts[0].key.rpartition("/")[0]
    assert ending.job.id in folder
    assert bucket.keys(folder) == sorted(artifact.key for artifact in ending.job.artifacts)
