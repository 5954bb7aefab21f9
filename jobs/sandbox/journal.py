"""An append-only file of JSON lines: what the sandbox must still know after it was killed."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Journal:
    """Events in the order they happened; without a path, nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        # Unbuffered: a line that was written survives SIGKILL, for the kernel has it.
        self._file = path.open("ab", buffering=0) if path else None
        if path and self._file and path.read_bytes()[-1:] not in {b"", b"\n"}:
            # A kill cut the last line short; the next event starts on its own.
            self._file.write(b"\n")

    def write(self, event: str, **fields: Any) -> None:
        """Append one event."""
        if self._file:
            self._file.write(json.dumps({"event": event, **fields}).encode() + b"\n")

    def read(self) -> Iterator[Event]:
        """All events so far; a line that a kill cut short is skipped."""
        if not self._path:
            return
        with self._path.open("rb") as lines:
            for line in lines:
                with contextlib.suppress(json.JSONDecodeError):
                    yield json.loads(line)

    def clear(self) -> None:
        """Forget everything."""
        if self._file:
            self._file.truncate(0)

    def close(self) -> None:
        if self._file:
            self._file.close()
