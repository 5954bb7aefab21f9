"""Whatever is sent to the receiver, its answer is one of the documented ones, and no job changes without its token."""

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
class Target:
    """A receiver, and jobs that wait for callbacks."""

    client: FlaskClient
    darkroom: Darkroom

    def waiting(self) -> Job:
        """A job whose first attempt is being sent."""
        job = self.darkroom.enqueue(deepmode.Generate(model_id="m", prompt=PROMPT))
        return self.darkroom.advance(
            job.id, lambda job, now: transitions.submitting(transitions.claimed(job, "w", now), "w", now)
        ).after

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
        return self.client.post(path, data=body, headers=headers, buffered=True)


@pytest.fixture(scope="module")
def target(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("target")
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
        yield Target(receiver.test_client(), darkroom)


@pytest.fixture(scope="module")
def path(target: Target) -> Callable[[Job], str]:
    """Where the provider of a job calls back."""
    return lambda job: callback_url.callback_url("/webhooks", job.provider, job.id, 1, [KEY])


@given(body=_BODIES)
def test_any_body_is_applied_or_refused(target: Target, path: Callable[[Job], str], body: bytes) -> None:
    job = target.waiting()
    answer = target.post(path(job), body)
    after = target.darkroom.repository.get(job.id)
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        assert answer.content_type == "application/problem+json"
        assert after.status is Status.SUBMITTING
        assert "not understood" in after.timeline[-1].what


@pytest.fixture(scope="module")
def untouched(target: Target) -> Job:
    """A job that must not change."""
    return target.waiting()


@given(token=st.text(max_size=100), provider=st.sampled_from(["deepmode", "phota", "nobody", "%2e%2e"]), body=_BODIES)
def test_no_other_token_changes_a_job(target: Target, untouched: Job, token: str, provider: str, body: bytes) -> None:
    token = token.encode(errors="replace").decode()
    answer = target.post(f"/webhooks/{provider}/{quote(token, safe='')}", body)
    assert answer.status_code in (403, 404, 405)
    assert target.darkroom.repository.get(untouched.id).version == untouched.version


@given(st.data())
def test_no_token_with_a_changed_character_changes_a_job(
    target: Target, untouched: Job, path: Callable[[Job], str], data: Any
) -> None:
    good = path(untouched)
    at = data.draw(st.integers(len("/webhooks/deepmode/"), len(good) - 1))
    other = data.draw(st.characters(codec="ascii", categories=["L", "N"]).filter(lambda letter: letter != good[at]))
    answer = target.post(good[:at] + other + good[at + 1 :], b'{"images": []}')
    assert (answer.status_code, answer.get_json()["detail"]) == (403, "The token or the signature is invalid.")
    assert target.darkroom.repository.get(untouched.id).version == untouched.version


_LETTERS = st.characters(codec="latin-1", exclude_characters="\r\n\x00")


@given(bearer=st.text(_LETTERS, max_size=60), scheme=st.sampled_from(["Bearer ", "bearer ", "Basic ", ""]))
def test_no_other_key_reads_a_job(target: Target, untouched: Job, bearer: str, scheme: str) -> None:
    answer = target.client.get(f"/v1/jobs/{untouched.id}", headers={"Authorization": scheme + bearer}, buffered=True)
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
