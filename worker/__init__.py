"""The hands: workers that perform calls, fetch and keep images. `celery -A worker worker` starts one."""

from .celery import app

__all__ = ["app"]
