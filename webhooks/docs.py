"""`GET /openapi.json`, and `GET /docs`: one page to read and try it, without an asset from another host."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files

from flask import Blueprint, Response

from .openapi import document


def blueprint() -> Blueprint:
    """The two routes. They hold no secret and want no key."""
    routes = Blueprint("docs", __name__)

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return Response(_document(), headers={"Cache-Control": "public, max-age=300"}, content_type="application/json")

    @routes.get("/docs")
    def docs() -> Response:
        page, policy = _page()
        headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "public, max-age=300",
        }
        return Response(page, headers=headers, content_type="text/html; charset=utf-8")

    return routes


@cache
def _document() -> bytes:
    return json.dumps(document(), separators=(",", ":")).encode()


@cache
def _page() -> tuple[str, str]:
    """The page, and the policy under which nothing but its own style and script runs."""
    page, style, script = ((files(__package__) / "page" / name).read_text() for name in _PARTS)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    return page.replace("/*style*/", style).replace("/*script*/", script), policy


_PARTS = ("docs.html", "docs.css", "docs.js")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
