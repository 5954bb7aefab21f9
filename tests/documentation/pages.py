"""The pages of the documentation, and the parts of them that tests check: code blocks, headings, links and code spans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced code block. The first word after the fence is its language, the others tell a test what to do with it."""

    page: str
    #: the line of the opening fence, from 1
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def mark(self, name: str) -> str | None:
        """The value of the mark `name=value`."""
        return next((mark.partition("=")[2] for mark in self.marks if mark.startswith(f"{name}=")), None)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """The text without its code blocks."""
        return _FENCE.sub("", self.text)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        for found in _FENCE.finditer(self.text):
            language, *marks = found["info"].split() or [""]
            line = self.text.count("\n", 0, found.start()) + 1
            indent = len(found["indent"])
            text = "".join(each[indent:] for each in found["text"].splitlines(keepends=True))
            yield Block(str(self), line, language, tuple(marks), text)

    @property
    def anchors(self) -> frozenset[str]:
        """The anchors that GitHub gives to the headings."""
        seen: dict[str, int] = {}
        for title in _HEADING.findall(self.prose):
            slug = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
            seen[slug] = seen.get(slug, -1) + 1
            if seen[slug]:
                seen[f"{slug}-{seen[slug]}"] = 0
        return frozenset(seen)

    @property
    def links(self) -> tuple[str, ...]:
        return tuple(_LINK.findall(self.prose))

    @property
    def spans(self) -> tuple[str, ...]:
        """The code spans of the prose."""
        return tuple(_SPAN.findall(self.prose))

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of the first table below a heading, without its header."""
        section = re.split(rf"^#+ {re.escape(heading)}$", self.text, flags=re.MULTILINE)[1]
        lines = [line for line in section.split("\n#", 1)[0].splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def page(path: str) -> Page:
    """The page at this path below the root of the repository."""
    return Page(ROOT / path)


def pages() -> tuple[Page, ...]:
    """Every page that a reader is meant to read."""
    top = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))
    return tuple(Page(path) for path in (*top, *sorted((ROOT / "docs").rglob("*.md"))) if path.exists())


def blocks(*languages: str) -> list[Block]:
    """The code blocks of all pages in these languages."""
    return [block for each in pages() for block in each.blocks if block.language in languages]
