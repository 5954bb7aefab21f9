"""Images in a folder: stored once, served by the receiver under a signed path that expires."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from jobs import Job, Status
from jobs.providers import aimlapi, deepmode

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def ended(folder: Any, picture: bytes) -> tuple[Job, ...]:
    """One job whose images came by URL, and one whose image came inside the answer."""
    by_url = folder.enqueue(deepmode.Generate(model_id="m", prompt="a hut in a folder", num_images=2))
    inside = folder.enqueue(
        aimlapi.ReveRemix(image_urls=[picture], prompt="a mug in a folder", convert_base64_to_url=False)
    )
    return folder.wait(by_url), folder.wait(inside)


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=10)


def test_the_receiver_serves_what_the_provider_served(
    ended: tuple[Job, ...], vendors: Any, sha256_of: Callable[[bytes], str]
) -> None:
    for job in ended:
        assert job.status is Status.SUCCEEDED, job.error
        (submission,) = vendors.submissions(job.params["prompt"])
        for artifact in job.artifacts:
            answer = get(artifact.url())
            assert answer.status_code == 200
            assert answer.headers["content-type"] == artifact.content_type
            assert answer.headers["x-content-type-options"] == "nosniff"
            served = vendors.served(submission["task_id"])[artifact.index]
            assert sha256_of(answer.content) == artifact.sha256 == served


def test_a_url_leads_to_its_own_image_only(ended: tuple[Job, ...]) -> None:
    first, second = ended[0].artifacts
    path, _, query = first.url().partition("?")
    assert get(f"{path}?{query}").status_code == 200
    assert get(f"{path.replace(first.key, second.key)}?{query}").status_code == 403
    assert get(path).status_code == 403


def test_the_http_api_gives_urls_that_work(ended: tuple[Job, ...], folder: Any) -> None:
    base = folder.environ["DARKROOM_PUBLIC_URL"]
    headers = {"Authorization": "Bearer the-api-key-of-a-test"}
    told = httpx.get(f"{base}/v1/jobs/{ended[0].id}", headers=headers, trust_env=False, timeout=10).json()
    assert told["status"] == "succeeded"
    assert [get(artifact["url"]).status_code for artifact in told["artifacts"]] == [200, 200]
