"""Whatever is sent to the receiver: an answer of the design, and a job that is moved by nobody without its token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

import webhooks
from jobs import Job, Status, callback_url, transitions
from jobs.darkroom import Darkroom
from jobs.providers import deepmode
from jobs.settings import Settings

KEY = "the-signing-secret"
PROMPT = "a lake at dawn, and a canary"
_WORDS = [
    "images",
    "image_url",
    "id",
    "status",
    "error",
    "message",
    "data",
    "failed",
    "completed",
    "https://a.example/b.png",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(_WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=4), inner),
    max_leaves=12,
)
_BODIES = st.binary(max_size=100) | _JSON.map(lambda value: json.dumps(value).encode())


@dataclass(frozen=True)
class Ear:
    """A receiver, and jobs that wait for their callbacks."""

    client: FlaskClient
    darkroom: Darkroom

    def waiting(self) -> Job:
        """A job whose first attempt is on its way."""
        job = self.darkroom.enqueue(deepmode.Generate(model_id="m", prompt=PROMPT))
        return self.darkroom.advance(
            job.id, lambda job, now: transitions.submitting(transitions.claimed(job, "w", now), "w", now)
        ).after

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
        return self.client.post(path, data=body, headers=headers, buffered=True)


@pytest.fixture(scope="module")
def ear(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ear]:
    folder = tmp_path_factory.mktemp("ear")
    settings = Settings(
        redis_url=f"{redis_server.removesuffix('/0')}/9",
        storage_url=f"file://{folder}/pictures",
        spool_dir=folder / "spool",
        public_url="http://receiver.test",
        secret_keys=KEY,
        api_keys="a-key-of-the-api",
    )
    receiver = webhooks.create_app(settings=settings, environ={}, threads=8)
    with receiver, closing(Darkroom.open(settings)) as darkroom:
        yield Ear(receiver.test_client(), darkroom)


@pytest.fixture(scope="module")
def path(ear: Ear) -> Callable[[Job], str]:
    """Where the provider of a job calls back."""
    return lambda job: callback_url.callback_url("/webhooks", job.provider, job.id, 1, [KEY])


@given(body=_BODIES)
def test_whatever_a_vendor_sends_is_kept_or_refused_as_the_design_has_it(
    ear: Ear, path: Callable[[Job], str], body: bytes
) -> None:
    job = ear.waiting()
    answer = ear.post(path(job), body)
    after = ear.darkroom.repository.get(job.id)
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        assert answer.content_type == "application/problem+json"
        assert after.status is Status.SUBMITTING
        assert "not understood" in after.timeline[-1].what


@pytest.fixture(scope="module")
def untouched(ear: Ear) -> Job:
    """A job that nobody may move."""
    return ear.waiting()


@given(token=st.text(max_size=100), provider=st.sampled_from(["deepmode", "phota", "nobody", "%2e%2e"]), body=_BODIES)
def test_no_token_that_is_not_ours_moves_a_job(
    ear: Ear, untouched: Job, token: str, provider: str, body: bytes
) -> None:
    token = token.encode(errors="replace").decode()
    answer = ear.post(f"/webhooks/{provider}/{quote(token, safe='')}", body)
    assert answer.status_code in (308, 403, 404, 405)
    assert ear.darkroom.repository.get(untouched.id).version == untouched.version


@given(st.data())
def test_no_token_that_is_almost_ours_moves_a_job(
    ear: Ear, untouched: Job, path: Callable[[Job], str], data: Any
) -> None:
    good = path(untouched)
    at = data.draw(st.integers(len("/webhooks/deepmode/"), len(good) - 1))
    other = data.draw(st.characters(codec="ascii", categories=["L", "N"]).filter(lambda letter: letter != good[at]))
    answer = ear.post(good[:at] + other + good[at + 1 :], b'{"images": []}')
    assert (answer.status_code, answer.get_json()["detail"]) == (403, "The token or the signature is invalid.")
    assert ear.darkroom.repository.get(untouched.id).version == untouched.version


_LETTERS = st.characters(codec="latin-1", exclude_characters="\r\n\x00")


@given(bearer=st.text(_LETTERS, max_size=60), scheme=st.sampled_from(["Bearer ", "bearer ", "Basic ", ""]))
def test_no_bearer_that_is_not_a_key_reads_a_job(ear: Ear, untouched: Job, bearer: str, scheme: str) -> None:
    answer = ear.client.get(f"/v1/jobs/{untouched.id}", headers={"Authorization": scheme + bearer}, buffered=True)
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
