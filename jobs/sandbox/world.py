"""What all vendors share: settings, clock, faults, ledger, and how long work takes."""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from .faults import Faults
from .journal import Journal
from .ledger import Ledger

#: A latency in seconds, or the bounds between which it is drawn for each submission.
Latency = float | tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """How a sandbox behaves while no fault is armed."""

    #: How long the work on one submission takes.
    latency_seconds: Latency = 0.0
    #: How long a result URL works; None is the vendor's own, 1 hour or 24 hours.
    result_life_seconds: float | None = None
    #: The only key accepted; None accepts every key but `wrong` and the empty one.
    api_key: str | None = None
    #: Callbacks of a vendor named here are signed with its secret.
    webhook_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Scheme and authority of result URLs; None: the host that the client's request named.
    public_url: str | None = None
    #: Longest side of an image. Pixels.
    image_size: int = 512
    #: The file that keeps the ledger over a restart; None keeps it in memory.
    state: Path | None = None
    #: Makes chances and drawn latencies repeatable.
    seed: int = 0


class World:
    """The state of one sandbox."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.journal = Journal(settings.state)
        self.ledger = Ledger(self.journal)
        self.faults = Faults(settings.seed)
        self._random = random.Random(settings.seed)

    def now(self, vendor: str) -> datetime:
        """The time by the vendor's clock, which a fault can put ahead of the host's."""
        skew = self.faults.standing(vendor, "clock-skew")
        return datetime.fromtimestamp(time.time() + (skew.number if skew else 0.0), UTC)

    def work_seconds(self, vendor: str) -> float:
        """How long the next submission to this vendor takes."""
        if fault := self.faults.take(vendor, "latency"):
            return fault.number
        latency = self.settings.latency_seconds
        return self._random.uniform(*latency) if isinstance(latency, tuple) else latency

    def key_is_good(self, key: str) -> bool:
        if self.settings.api_key is not None:
            return key == self.settings.api_key
        return key not in {"", "wrong"}

    def clear(self) -> None:
        """Forget everything but the settings."""
        self.ledger.clear()
        self.journal.clear()
        self.faults.clear()

    async def until(self, moment: float) -> None:
        """Sleep until `moment`, seconds since 1970."""
        await asyncio.sleep(max(0.0, moment - time.time()))
