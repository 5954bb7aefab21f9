"""`NAME=VALUE` arguments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..errors import FieldError, InvalidRequest


def read_pairs(pairs: Iterable[str], option: str) -> dict[str, list[str]]:
    """The values of `name=value` arguments by name, in their order. Raises InvalidRequest, which names the `option`."""
    found: dict[str, list[str]] = defaultdict(list)
    wrong = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if equals and name:
            found[name].append(value)
        else:
            wrong.append(FieldError(option, f"should be NAME=VALUE, not {pair[:80]!r}"))
    if wrong:
        raise InvalidRequest(*wrong)
    return dict(found)
