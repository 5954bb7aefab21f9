"""`GET /openapi.json`, and `GET /docs`: a page on which the API can be read and tried, without assets from other hosts."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files

from flask import Blueprint, Response

from .openapi import document


def blueprint() -> Blueprint:
    """The two routes. They contain no secret and need no API key."""
    routes = Blueprint("docs", __name__)

    @routes.get("/openapi.json")
    def get_openapi() -> Response:
        headers = {"Cache-Control": "public, max-age=300"}
        return Response(_document(), headers=headers, content_type="application/json")

    @routes.get("/docs")
    def get_docs() -> Response:
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
    """The page, and a content security policy that allows its own style and script only."""
    page, style, script = (
        (files(__package__) / "page" / name).read_text() for name in ("docs.html", "docs.css", "docs.js")
    )
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "
        "style-src 'sha256-{}'; script-src 'sha256-{}'"
    ).format(*digests)
    return page.replace("/*style*/", style).replace("/*script*/", script), policy
