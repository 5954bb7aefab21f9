"""The worker: calls providers, fetches images and stores them. `celery -A worker worker` starts one."""

from .celery import app

__all__ = ["app"]
