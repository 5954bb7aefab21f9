"""The providers, and what a provider's file needs of Darkroom.

Each module of this package whose name has no leading underscore is a provider, and so is each entry point of the group
`darkroom.providers`: a company's own provider can be a distribution of its own. Either holds one `Provider`, as `provider`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from ..errors import FieldError, InvalidCallback, InvalidRequest, did_you_mean
from ..report import Charged, Code, Cost, Failed, Image, Report, Running, Succeeded, Unit
from ..request import ImageInput, ImageRule, Request
from . import _parsing as parsing
from ._contract import (
    NAME,
    NAME_IN_WORDS,
    OVERLOADED,
    Abilities,
    Call,
    Context,
    FilePart,
    InputImage,
    InvalidProvider,
    Meaning,
    Operation,
    OperationDefaults,
    Provider,
    ProviderOptions,
    Response,
    bearer,
    error_message,
    examples,
    failed_by_status,
    file_part,
    quoted,
    retry_after_seconds,
    unreadable,
)

__all__ = [
    "ENTRY_POINTS",
    "OVERLOADED",
    "Abilities",
    "Call",
    "Charged",
    "Code",
    "Context",
    "Cost",
    "Failed",
    "FilePart",
    "Image",
    "ImageInput",
    "ImageRule",
    "InputImage",
    "InvalidCallback",
    "InvalidProvider",
    "Meaning",
    "Operation",
    "OperationDefaults",
    "Provider",
    "ProviderOptions",
    "Report",
    "Request",
    "Response",
    "Running",
    "Succeeded",
    "Unit",
    "bearer",
    "error_message",
    "examples",
    "failed_by_status",
    "faults",
    "file_part",
    "names",
    "operation",
    "operation_names",
    "parsing",
    "provider",
    "quoted",
    "retry_after_seconds",
    "sources",
    "unreadable",
]

#: the group of entry points under which a distribution offers a provider
ENTRY_POINTS = "darkroom.providers"


@cache
def sources() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Where each provider comes from, by name, without loading any: several places where a name is taken more than once."""
    own = (
        EntryPoint(module.name, f"{__name__}.{module.name}", ENTRY_POINTS)
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    )
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in (*own, *entry_points(group=ENTRY_POINTS)):
        found.setdefault(entry.name, {}).setdefault(entry.value, entry)
    return {name: tuple(places.values()) for name, places in sorted(found.items())}


@cache
def names() -> tuple[str, ...]:
    """The names of all providers that can be used; loads every provider."""
    return tuple(name for name in sources() if isinstance(_load(name), Provider))


@cache
def faults() -> Mapping[str, str]:
    """What is wrong with what is installed, by name: a sentence for each provider that is not used; loads every provider."""
    found = {name: _taken_twice(name) or _load(name) for name in sources()}
    return {name: str(fault) for name, fault in found.items() if not isinstance(fault, Provider)}


@cache
def provider(name: str) -> Provider:
    """The provider of this name.

    Raises InvalidRequest, naming the known ones, and InvalidProvider for one that is installed but cannot be used.
    """
    if name not in sources():
        raise InvalidRequest(_unknown("provider", name, names()))
    found = _load(name)
    if isinstance(found, InvalidProvider):
        raise InvalidProvider(str(found))
    return found


@cache
def _load(name: str) -> Provider | InvalidProvider:
    """An installed provider, or why it cannot be used: whatever is wrong with it, the others go on."""
    source = sources()[name][0]
    if not NAME.fullmatch(name):
        return InvalidProvider(f"{name!r} ({source.value}) must be {NAME_IN_WORDS}")
    if not _is_own(source) and (sentence := _taken_twice(name)):
        return InvalidProvider(sentence)
    try:
        loaded = source.load()
    except Exception as error:  # noqa: BLE001 - a company's own module may raise anything when it is imported
        return InvalidProvider(f"{name} cannot be loaded from {source.value}: {error or type(error).__name__}")
    found = loaded if isinstance(loaded, Provider) else getattr(loaded, "provider", None)
    if not isinstance(found, Provider):
        return InvalidProvider(f"{source.value} holds no `provider`: add provider = Provider(name={name!r}, ...)")
    if found.name != name:
        return InvalidProvider(f"{source.value} is installed as {name}, but its provider is named {found.name}")
    return found


def _taken_twice(name: str) -> str:
    """What is wrong with a name that is taken more than once; empty otherwise.

    Of two distributions neither is used, since a guess could send a request and a key to the wrong company. A provider of
    this package keeps its name.
    """
    first, *others = sources()[name]
    if not others:
        return ""
    places = " and ".join(place.value for place in (first, *others))
    used, others_are = (first.value, "the other") if _is_own(first) else ("none of them", "all but one")
    return f"the name {name} is taken more than once: {places}; {used} is used; rename or uninstall {others_are}"


def _is_own(source: EntryPoint) -> bool:
    return source.value == f"{__name__}.{source.name}"


@cache
def operation(name: str) -> Operation:
    """The operation of this full name, for example `deepmode.generate`.

    Raises InvalidRequest, naming the known ones, and InvalidProvider when its provider is installed but cannot be used.
    """
    prefix = name.partition(".")[0]
    if prefix in sources() and name in provider(prefix).operations:
        return provider(prefix).operations[name]
    raise InvalidRequest(_unknown("operation", name, operation_names()))


@cache
def operation_names() -> tuple[str, ...]:
    """The full names of all operations of the providers that can be used; loads every provider."""
    return tuple(full_name for name in names() for full_name in provider(name).operations)


def _unknown(field: str, name: str, known: Sequence[str]) -> FieldError:
    hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
    return FieldError(field, f"unknown {field} {name[:80]!r}; {hint}", repr(name[:80]), ", ".join(known))
