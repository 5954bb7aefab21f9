"""The private files of a stack: its folder, its secrets, and the file by which other commands find it."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

from ..settings import STACK_FILE

#: what the names of Darkroom's own settings begin with
PREFIX = "DARKROOM_"


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can read and that version control ignores; an existing one is kept."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")


def load_secret(file: Path) -> str:
    """The secret in this file, which is generated if it does not exist."""
    if not file.exists():
        _write_private(file, secrets.token_urlsafe(32) + "\n")
    return file.read_text().strip()


def write_env_file(folder: Path, environ: Mapping[str, str]) -> Path:
    """Write how to reach the stack, as lines that a shell can read too; only the owner of the file can read it."""
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in environ.items() if name.startswith(PREFIX))
    _write_private(folder / STACK_FILE, "".join(sorted(lines)))
    return folder / STACK_FILE


def _write_private(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)
