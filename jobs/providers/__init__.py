"""The providers: each module in this package is one vendor and holds one `provider`; a new vendor is a new file."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from typing import cast

from ..errors import FieldError, InvalidRequest
from ._contract import Operation, Provider


@cache
def names() -> tuple[str, ...]:
    """The names of all providers, without loading any."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


@cache
def provider(name: str) -> Provider:
    """The provider of this name. Raises InvalidRequest, naming the known ones."""
    if name not in names():
        raise InvalidRequest(_unknown("provider", name, names()))
    return cast(Provider, importlib.import_module(f"{__name__}.{name}").provider)


@cache
def operation(name: str) -> Operation:
    """The operation of this full name. Raises InvalidRequest, naming the known ones."""
    vendor = name.partition(".")[0]
    if vendor in names() and name in provider(vendor).operations:
        return provider(vendor).operations[name]
    raise InvalidRequest(_unknown("operation", name, operation_names()))


@cache
def operation_names() -> tuple[str, ...]:
    """The full names of all operations; loads every provider."""
    return tuple(name for vendor in names() for name in provider(vendor).operations)


def _unknown(field: str, name: str, known: Sequence[str]) -> FieldError:
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f'did you mean "{nearest[0]}"?' if nearest else f"known are {', '.join(known)}"
    return FieldError(field, f"unknown {field} {name[:80]!r}; {hint}", repr(name[:80]), ", ".join(known))
