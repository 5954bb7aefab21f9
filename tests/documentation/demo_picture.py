"""Draws what `darkroom demo` prints: a real run on a terminal of 80 columns, as an SVG."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

from rich.console import Console
from rich.text import Text

from .pages import ROOT

PICTURE = ROOT / "docs" / "images" / "demo.svg"
COLUMNS = 80


def drawn() -> str:
    """The SVG. Raises CalledProcessError when a job of the demo does not succeed."""
    environ = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "jobs.cli", "demo"]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=120)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print("[bold]$ darkroom demo[/bold]")
    console.print(Text.from_ansi(ran.stdout.rstrip()))
    svg = console.export_svg(title="darkroom demo", unique_id="demo")
    # Without the fonts that it would load from elsewhere: the reader's own monospaced font serves.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
