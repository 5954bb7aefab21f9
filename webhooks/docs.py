"""`GET /openapi.json`, and `GET /docs`: a page on which the API can be read and tried, without assets from other hosts."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from flask import Blueprint, Response

from .openapi import document_json


def blueprint() -> Blueprint:
    """The two routes. They need no API key. The page's content security policy allows its own style and script only."""
    routes = Blueprint("docs", __name__)
    page, style, script = ((files(__package__) / "page" / f"docs.{kind}").read_text() for kind in ("html", "css", "js"))
    page = page.replace("/*style*/", style).replace("/*script*/", script)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "
        "style-src 'sha256-{}'; script-src 'sha256-{}'"
    ).format(*digests)

    @routes.get("/openapi.json")
    def get_openapi() -> Response:
        headers = {"Cache-Control": "public, max-age=300"}
        return Response(document_json(), headers=headers, content_type="application/json")

    @routes.get("/docs")
    def get_docs() -> Response:
        headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "public, max-age=300",
        }
        return Response(page, headers=headers, content_type="text/html; charset=utf-8")

    return routes
