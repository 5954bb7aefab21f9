"""Commands over connections that stay open: answers in order, errors that spoil nothing, connections that died or were forked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from jobs.state.connection import Wire

ECHO = "return {KEYS[1], ARGV[1]}"


@pytest.fixture
def wire(redis_url: str) -> Iterator[Wire]:
    with Redis.from_url(redis_url, retry=Retry(NoBackoff(), 1)) as client:
        yield Wire(client)


def test_an_answer_comes_as_bytes(wire: Wire) -> None:
    assert wire.ask("SET", "a", "1") == b"OK"
    assert wire.ask("GET", "a") == b"1"
    assert wire.ask("GET", "b") is None


def test_many_commands_are_answered_in_their_order(wire: Wire) -> None:
    commands = [("SET", f"key-{number}", number) for number in range(300)]
    wire.ask_all(commands)
    assert wire.ask_all([("GET", f"key-{number}") for number in range(300)]) == [b"%d" % n for n in range(300)]


def test_an_error_is_raised_once_all_was_read_so_that_the_next_answer_is_the_right_one(wire: Wire) -> None:
    with pytest.raises(ResponseError):
        wire.ask_all([("SET", "a", "text"), ("INCR", "a"), ("SET", "b", "2")])
    assert wire.ask("GET", "b") == b"2"


def test_a_script_that_the_server_does_not_know_is_loaded_on_the_way(wire: Wire, redis: Redis) -> None:
    script = redis.register_script(ECHO)
    redis.script_flush()
    assert wire.run(script, ["key"], ["one"]) == [b"key", b"one"]
    redis.script_flush()
    assert wire.run_all(script, [("key", "one"), ("key", "two")], 1, ("ECHO", "behind")) == [
        [b"key", b"one"],
        [b"key", b"two"],
        b"behind",
    ]


def test_a_connection_that_the_server_closed_is_opened_again(wire: Wire, redis: Redis) -> None:
    mine = wire.ask("CLIENT", "ID")
    redis.client_kill_filter(_id=mine)
    assert wire.ask("PING") == b"PONG"


_FORKING = """
import os, sys, warnings
from redis import Redis
from jobs.state.connection import Wire
warnings.simplefilter("ignore")
wire = Wire(Redis.from_url(sys.argv[1]))
wire.ask("PING")
child = os.fork()
name = "parent" if child else "child"
answers = {wire.ask("ECHO", name) for _ in range(500)}
assert answers == {name.encode()}, answers
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_asks_over_a_connection_of_its_own(redis_url: str) -> None:
    subprocess.run([sys.executable, "-c", _FORKING, redis_url], check=True, timeout=30)
