"""Amounts, durations and times in words, as a person reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ..attempt import Attempt
from ..errors import FieldError, InvalidRequest
from ..report import Charged, Cost, Unit

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGE = re.compile(r"([0-9]{1,6})([smhd])")


def amount(cost: Cost) -> str:
    """For example `$0.36`, `1 credit` or `1,200 tokens`."""
    if cost.unit is Unit.USD:
        # Two digits of cents, and more where the amount has them.
        return f"${max(f'{cost.amount:.2f}', f'{cost.amount:g}', key=lambda text: len(text.partition('.')[2]))}"
    return f"{cost.amount:,g} {cost.unit}{'' if cost.amount == 1 else 's'}"


def attempt_cost(attempt: Attempt) -> str:
    """What one attempt costs: `nothing`, `$0.36`, `about 3 credits`, or `unknown`."""
    if attempt.charged is Charged.NO:
        return "nothing"
    if attempt.cost:
        return amount(attempt.cost)
    return f"about {amount(attempt.expected_cost)}" if attempt.expected_cost else "unknown"


def total_cost(attempts: Iterable[Attempt]) -> str:
    """What all attempts of a job cost, for example `about $0.36`, `3 credits`, `nothing` or `unknown`."""
    charged = [attempt for attempt in attempts if attempt.charged is not Charged.NO]
    if not charged:
        return "nothing"
    costs = [attempt.cost or attempt.expected_cost for attempt in charged]
    totals: dict[Unit, float] = {}
    for cost in costs:
        if cost:
            totals[cost.unit] = totals.get(cost.unit, 0.0) + cost.amount
    if not totals:
        return "unknown"
    known = " + ".join(amount(Cost(total, unit)) for unit, total in totals.items())
    about = "about " if any(attempt.cost is None for attempt in charged) else ""
    return f"{about}{known}{' and an unknown amount' if None in costs else ''}"


def duration(seconds: float) -> str:
    """For example `0.4 s`, `12 s`, `3 min`, `2 h` or `5 days`."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f} days"


def moment(at: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def read_since(text: str, now: datetime) -> datetime:
    """The time that `2026-11-26T08:00` names (UTC unless it says otherwise), or how long ago `30m` or `2h` was.

    Raises InvalidRequest.
    """
    if found := _AGE.fullmatch(text):
        return now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        message = (
            f"{text[:80]!r} is neither an age, for example 30m, 2h or 7d, nor a time, for example 2026-11-26T08:00"
        )
        raise InvalidRequest(FieldError("--since", message)) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
