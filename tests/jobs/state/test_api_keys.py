"""API keys in Redis."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import InvalidRequest, RedisUnavailable
from jobs.state.api_keys import KeyStore, Scope, digest, key_id


@pytest.fixture
def store(redis: Any) -> KeyStore:
    """The keys of an empty database."""
    return KeyStore(redis)


def test_a_new_key_is_listed_without_its_secret(store: KeyStore, redis: Any) -> None:
    key, secret = store.create("shop", [Scope.JOBS_READ])

    assert store.all() == (key,)
    assert (key.name, key.scopes, key.digest) == ("shop", {Scope.JOBS_READ}, digest(secret))
    assert key_id(secret) == key.id
    assert secret.encode() not in b"".join(redis.hvals("darkroom:keys"))
    assert secret not in repr(key)
    assert key.digest not in repr(key)


def test_keys_are_revoked_by_id_or_all_of_a_name(store: KeyStore) -> None:
    first, second, third, other = (store.create(name, ["admin"])[0] for name in ("shop", "shop", "shop", "else"))

    assert store.revoke(first.id) == (first,)
    assert store.revoke("shop") == (second, third)
    assert store.revoke("shop") == ()
    assert store.all() == (other,)


@pytest.mark.parametrize("name", ["", "a b", "env:1", "x" * 65, "-x", "näme"])
def test_names_are_short_and_plain(store: KeyStore, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        store.create(name, ["admin"])


@pytest.mark.parametrize("scopes", [[], ["root"], ["jobs:read", "jobs:delete"]])
def test_unknown_scopes_are_refused(store: KeyStore, scopes: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="scope"):
        store.create("shop", scopes)


@pytest.mark.parametrize("text", ["", "drk_", "drk_0123456789ab_short", "sk_0123456789ab_" + "x" * 43])
def test_text_that_does_not_look_like_a_key_has_no_id(text: str) -> None:
    assert key_id(text) is None


def test_without_redis_there_is_an_error(free_port: int) -> None:
    with pytest.raises(RedisUnavailable):
        KeyStore.open(f"redis://127.0.0.1:{free_port}/0").all()
