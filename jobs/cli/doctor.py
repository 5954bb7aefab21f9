"""`darkroom doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import click
from rich.text import Text

from .checks import Finding, State, run_checks
from .console import Cell, out, print_json, show, width_of, wrapped

_STYLES: Mapping[State, str] = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "red"}


@click.command(short_help="Check everything that jobs need.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def doctor(as_json: bool) -> int:
    """Check everything that jobs need, and print the command that fixes what is wrong. Exit 1 if something is broken."""
    findings = list(run_checks())
    broken = any(finding.state is State.BROKEN for finding in findings)
    if as_json:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in findings]})
    else:
        console = out()
        show(_lines(findings, width_of(console)), console)
    return 1 if broken else 0


def _lines(findings: Sequence[Finding], width: int) -> Iterator[Cell]:
    """A finding a line, its fix below it: a command on one line, so that it can be copied."""
    states, names = (max(map(len, texts)) + 2 for texts in ([f.state for f in findings], [f.name for f in findings]))
    for finding in findings:
        first = finding.state.ljust(states) + finding.name.ljust(names)
        for line in wrapped(finding.message, width, first, len(first)):
            yield Text.assemble((line[:states], _STYLES[finding.state]), line[states:])
        if finding.fix:
            yield Text.assemble((f"{'':{states}}fix: ", "bold"), finding.fix)
