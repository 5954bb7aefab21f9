"""The providers, and what a provider's file needs of Darkroom.

Each module of this package whose name has no leading underscore is a provider, and so is each entry point of the group
`darkroom.providers`: a company's own provider can be a distribution of its own. Either holds one `Provider`, as `provider`.
"""

from __future__ import annotations

import difflib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from ..errors import FieldError, InvalidCallback, InvalidRequest
from ..report import Charged, Code, Cost, Failed, Image, Report, Running, Succeeded, Unit
from ..request import ImageInput, ImageRule, Request
from . import _parsing as parsing
from ._contract import (
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
    "failed_by_status",
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
def sources() -> Mapping[str, EntryPoint]:
    """Where each provider comes from, by name, without loading any. Raises InvalidProvider when a name is taken twice."""
    found = {
        module.name: EntryPoint(module.name, f"{__name__}.{module.name}", ENTRY_POINTS)
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    }
    for entry in entry_points(group=ENTRY_POINTS):
        if not re.fullmatch(r"[a-z][a-z0-9]*", entry.name):
            raise InvalidProvider(
                f"{entry.name!r} ({entry.value}) must be lower-case letters and digits, for example acme"
            )
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise InvalidProvider(
                f"two providers are named {entry.name}: {other.value} and {entry.value}; rename one, or uninstall it"
            )
    return dict(sorted(found.items()))


@cache
def names() -> tuple[str, ...]:
    """The names of all providers, without loading any. Raises InvalidProvider when a name is taken twice."""
    return tuple(sources())


@cache
def provider(name: str) -> Provider:
    """The provider of this name.

    Raises InvalidRequest, naming the known ones, and InvalidProvider when its module does not hold a provider of this name.
    """
    source = sources().get(name)
    if source is None:
        raise InvalidRequest(_unknown("provider", name, names()))
    try:
        loaded = source.load()
    except (ImportError, AttributeError) as error:
        raise InvalidProvider(f"{name} cannot be loaded from {source.value}: {error}") from error
    found = loaded if isinstance(loaded, Provider) else getattr(loaded, "provider", None)
    if not isinstance(found, Provider):
        raise InvalidProvider(f"{source.value} holds no `provider`: add provider = Provider(name={name!r}, ...)")
    if found.name != name:
        raise InvalidProvider(f"{source.value} is installed as {name}, but its provider is named {found.name}")
    return found


@cache
def operation(name: str) -> Operation:
    """The operation of this full name, for example `deepmode.generate`. Raises InvalidRequest, naming the known ones."""
    prefix = name.partition(".")[0]
    if prefix in names() and name in provider(prefix).operations:
        return provider(prefix).operations[name]
    raise InvalidRequest(_unknown("operation", name, operation_names()))


@cache
def operation_names() -> tuple[str, ...]:
    """The full names of all operations; loads every provider."""
    return tuple(full_name for name in names() for full_name in provider(name).operations)


def _unknown(field: str, name: str, known: Sequence[str]) -> FieldError:
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f'did you mean "{nearest[0]}"?' if nearest else f"known are {', '.join(known)}"
    return FieldError(field, f"unknown {field} {name[:80]!r}; {hint}", repr(name[:80]), ", ".join(known))
