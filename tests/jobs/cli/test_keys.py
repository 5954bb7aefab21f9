"""`darkroom keys`."""

from __future__ import annotations

import json

import pytest

from jobs.cli import run
from jobs.state.api_keys import KeyStore, digest


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> KeyStore:
    """The keys that the command line creates."""
    monkeypatch.setenv("DARKROOM_REDIS_URL", redis_url)
    return KeyStore.open(redis_url)


def test_a_new_key_is_printed_once(store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "new", "shop", "--scope", "jobs:read"]) == 0
    secret = capsys.readouterr().out.strip()
    (kept,) = store.all()

    assert (kept.name, set(kept.scopes), kept.digest) == ("shop", {"jobs:read"}, digest(secret))
    assert run(["keys", "list"]) == 0
    assert run(["keys", "list", "--json"]) == 0
    listed = capsys.readouterr().out
    assert kept.id in listed
    assert secret not in listed
    assert kept.digest not in listed


def test_without_scopes_a_key_may_read_and_write(store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "new", "shop", "--json"]) == 0

    made = json.loads(capsys.readouterr().out)
    assert (made["scopes"], made["key"][:4]) == (["jobs:read", "jobs:write"], "drk_")


def test_an_empty_list_says_so(store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "list"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err.split(";")[0]) == ("", "there are no keys yet, except those of DARKROOM_API_KEYS")
    assert run(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_key_is_revoked_by_its_name(store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.create("shop", ["admin"])

    assert run(["keys", "revoke", "shop"]) == 0
    assert run(["keys", "revoke", "shop"]) == 1
    assert store.all() == ()


@pytest.mark.parametrize("words", [["new", "a b"], ["new", "shop", "--scope", "root"]])
def test_a_malformed_key_is_refused(store: KeyStore, words: list[str]) -> None:
    assert run(["keys", *words]) == 2
    assert store.all() == ()
