"""Staged inputs: images of requests that are stored under their SHA-256 until their jobs are over.

A request refers to one as `staged:<sha256>.<extension>`.
"""

from __future__ import annotations

from ..image_file import Facts
from . import Storage
from .objects import checked_key

_SCHEME = "staged:"


def stage_image(storage: Storage, content: bytes, facts: Facts) -> str:
    """Store an image under its SHA-256 and return the reference to it; an image that exists already is kept longer."""
    key = staged_key(facts.sha256, facts.extension)
    if not storage.renew(key):
        storage.put(key, content, content_type=facts.content_type, metadata={"sha256": facts.sha256})
    return f"{_SCHEME}{facts.sha256}.{facts.extension}"


def staged_key(sha256: str, extension: str) -> str:
    """The key of a staged input; the same content always has the same key."""
    return checked_key(f"staged/{sha256[:2]}/{sha256}.{extension}")


def reference_key(reference: str) -> str:
    """The key of the staged input that `staged:<sha256>.<extension>` refers to."""
    sha256, _, extension = reference.removeprefix(_SCHEME).partition(".")
    return staged_key(sha256, extension)
