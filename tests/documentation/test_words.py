"""The words that users read: what was renamed is gone, and so are sentences that no documentation of this field has.

The list is the left column of the project's table of words, as patterns. A hit is allowed only where `ALLOWED` says so.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from documentation.cli_reference import commands
from documentation.pages import ROOT, page, pages

from jobs import providers
from webhooks import openapi

#: names that were changed
RENAMED = (r"notify_\w+", r"NOTIFY_\w+", r"\bresubmit\w*", r"\bon_unknown=.resubmit")
#: words for which the glossary has another
SYNONYMS = (r"\bvendors?\b", r"\bvendors?'s?\b", r"\bpictures?\b", r"\bsettled\b")
#: ways to say something that must be read twice
SENTENCES = (
    r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer\b|more\b|other\b|different\b|further\b)[A-Za-z]",
    r"\bwhoever\b",
    r"\bwhatever\b",
    r"\bin hand\b",
    r"\bhas in (?:its )?hands?\b",
    r"\bhands on\b",
    r"\bhanded on\b",
    r"\btold\b(?! apart)",
    r"\btells? (?:of|nobody|nothing)\b",
    r"\btell of\b",
    r"\bstands? (?:in|there|beside|for itself|as|on|still)\b",
    r"\bis had\b",
    r"\bto be had\b",
    r"\bcannot be had\b",
    r"\bnobody saw\b",
    r"\bend was not seen\b",
    r"\bends? of an attempt\b",
    r"\bthat nobody\b",
    r"\banew\b",
    r"\bput(?:s)? off\b",
    r"\bmends?\b",
    r"\bheed(?:s|ed)?\b",
    r"\bfor ever\b",
    r"\bat hand\b",
    r"\bwhat is (?:due|no|not)\b",
    r"\bby itself alone\b",
    r"\bon its own in a moment\b",
    r"\bmust have a write\b",
    r"\bknocks?\b",
    r"\bNews\b",
)
PATTERN = re.compile("|".join((*RENAMED, *SYNONYMS, *SENTENCES)))

_VENDORS = (r"\b[Vv]endors?\b(?:'s?)?",)
#: what may stay, by the place where it is read: the words around it
ALLOWED: Mapping[str, tuple[str, ...]] = {
    # the glossary and the contributors' page say which word is used only in the sandbox
    "docs/glossary.md": (r"\"Vendor\" is used only",),
    # names of what changed
    "CHANGELOG.md": (r"`[^`]*(?:notify|NOTIFY|resubmit|vendor|picture)[^`]*`",),
    # the sandbox plays vendors
    "darkroom sandbox": _VENDORS,
    "jobs/sandbox": _VENDORS,
    "docs/reference/cli.md": (r"\[@vendor\]", r"VENDOR=SECRET", r"[Aa] vendor's", r"the vendor's"),
    # pydantic and the OpenAPI specification have words of their own
    "openapi": (),
}
#: where an exception's or a command's words are written
SPEAKING = {
    "problem",
    "unavailable",
    "note",
    "warn",
    "warning",
    "complain",
    "echo",
    "print",
    "Finding",
    "Wrong",
    "Text",
    # of the sandbox
    "error",
    "json_answer",
    "_kinds",
}
PACKAGES = ("jobs", "worker", "webhooks")


def found(place: str, text: str) -> list[str]:
    """The old words of a text that are not allowed there, each with what is around it."""
    for allowed in ALLOWED.get(place, ()):
        text = re.sub(allowed, "", text)
    return [text[max(hit.start() - 40, 0) : hit.end() + 30].replace("\n", " ") for hit in PATTERN.finditer(text)]


@pytest.mark.parametrize("name", [str(each) for each in pages()], ids=str)
def test_a_page_has_none(name: str) -> None:
    assert "\n".join(found(name, page(name).text)) == ""


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=str)
def test_a_commands_help_has_none(path: str) -> None:
    command = dict(commands())[path]
    texts = [
        command.help or "",
        command.short_help or "",
        *(getattr(each, "help", None) or "" for each in command.params),
    ]
    assert "\n".join(found(f"darkroom {path}", "\n".join(texts))) == ""


def test_the_openapi_document_has_none() -> None:
    document = openapi.document()
    # The fields, examples and descriptions of a request are in the provider's own words.
    for name in providers.operation_names():
        document["components"]["schemas"].pop(providers.operation(name).request.__name__, None)
        variant = "New" + "".join(word.capitalize() for word in re.split(r"[.-]", name))
        assert document["components"]["schemas"].pop(variant)
    for path in ("/v1/jobs", "/v1/batches"):
        del document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert "\n".join(found("openapi", json.dumps(document, ensure_ascii=False))) == ""


def files() -> Iterator[str]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT))


def said(path: Path) -> Iterator[str]:
    """The texts of a file that a user may read: of exceptions that are raised, and of calls that speak."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from _texts(node.exc)
        elif isinstance(node, ast.Call) and _name(node.func) in SPEAKING | _ERRORS:
            yield from _texts(node)


#: calls that make what is shown later: an exception's own message, a failure, a reason
_ERRORS = {
    "__init__",
    "Failure",
    "Failed",
    "Missing",
    "Postponed",
    "Try",
    "FieldError",
    "InvalidRequest",
    "SettingsError",
}


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _texts(node: ast.AST) -> Iterator[str]:
    """The constants of an expression; what is put between them is a blank."""
    for child in ast.walk(node):
        if isinstance(child, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in child.values)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


@pytest.mark.parametrize("name", list(files()), ids=str)
def test_a_message_has_none(name: str) -> None:
    place = "jobs/sandbox" if name.startswith("jobs/sandbox/") else name
    assert "\n".join(hit for text in said(ROOT / name) for hit in found(place, text)) == ""


@pytest.mark.parametrize(
    "words",
    [
        "'x' is no URL",
        "the vendor's id",
        "job X has told nothing yet",
        "where jobs tell of themselves",
        "an end that nobody saw",
        "notify_url",
        "its pictures are being stored",
    ],
)
def test_an_old_sentence_is_found(words: str) -> None:
    assert found("anywhere", words)


@pytest.mark.parametrize("words", ["there is no longer a limit", "tell them apart", "the provider's id", "an image"])
def test_a_plain_sentence_is_not(words: str) -> None:
    assert not found("anywhere", words)
