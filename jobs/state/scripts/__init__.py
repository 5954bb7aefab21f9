"""What Redis does in one step: Lua scripts by which a record and the sets beside it never disagree.

A script is a file; its header says what it does, and names its keys, its arguments and its answer in their order. Each can be
repeated, for an answer may be lost after the script has run. An argument that is not needed is empty; the place of a key that is
not touched is then taken by any other. Times are milliseconds of Redis' clock, and an answer includes `now` by it.
"""

from __future__ import annotations

from pathlib import Path


def source(name: str) -> str:
    """The text of a script."""
    return Path(__file__).with_name(f"{name}.lua").read_text(encoding="utf-8")


CREATE = source("create")
WRITE = source("write")
TICK = source("tick")
RELEASE = source("release")
TAKE_FROM_LANE = source("take_from_lane")
PUT_IN_LANE = source("put_in_lane")
TAKE_REQUEST = source("take_request")
