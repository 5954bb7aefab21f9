"""`/v1`: jobs over HTTP, for whoever holds an API key."""

from __future__ import annotations

from flask import Blueprint

from . import events, jobs, uploads
from .access import Api, guard

__all__ = ["Api", "blueprint"]


def blueprint(api: Api) -> Blueprint:
    """The routes below `/v1`."""
    routes = Blueprint("api", __name__, url_prefix="/v1")
    guard(routes, api)
    jobs.add(routes, api)
    events.add(routes, api)
    uploads.add(routes, api)
    return routes
