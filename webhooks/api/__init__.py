"""`/v1`: jobs over HTTP, for the holders of API keys. A file for each resource; `access` has what they share."""

from __future__ import annotations

# Each module adds its views to the blueprint.
from . import batches, events, jobs, operations, uploads
from .access import Api, routes

__all__ = ["Api", "batches", "events", "jobs", "operations", "routes", "uploads"]
