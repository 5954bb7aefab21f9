"""The worlds that are explored: each kind of provider, with each policy of a job."""

from __future__ import annotations

from jobs.attempt import Recovery
from jobs.job import OnUnknown

from .world import Provider, Setting

#: steps from the start; `make model DEPTH=14` goes deeper
DEPTH = 11

SYNCHRONOUS = Provider("synchronous", synchronous=True)
INLINE = Provider("inline", synchronous=True, inline=True)
CALLING_BACK = Provider("calling back", Recovery.CALLBACK, calls_back=True)
POLLED = Provider("polled", polled=True)
KEYED = Provider("keyed", Recovery.KEY, polled=True, calls_back=True)
LOOKED_UP = Provider("looked up", Recovery.LOOKUP, polled=True)

CHARGE_AGAIN = OnUnknown.CHARGE_AGAIN

SETTINGS = (
    Setting(SYNCHRONOUS),
    Setting(SYNCHRONOUS, CHARGE_AGAIN),
    Setting(SYNCHRONOUS, images=2),
    Setting(SYNCHRONOUS, keep_late=True, people=2),
    Setting(INLINE),
    Setting(INLINE, CHARGE_AGAIN, keep_late=True),
    Setting(CALLING_BACK),
    Setting(CALLING_BACK, CHARGE_AGAIN),
    Setting(CALLING_BACK, keep_late=True, images=2),
    Setting(CALLING_BACK, lies=1, people=0),
    Setting(POLLED),
    Setting(POLLED, CHARGE_AGAIN),
    Setting(KEYED),
    Setting(KEYED, CHARGE_AGAIN),
    Setting(KEYED, keep_late=True, people=2),
    Setting(KEYED, lies=1, people=0),
    Setting(LOOKED_UP),
)
