"""Paths to handlers."""

import re
from collections.abc import Awaitable, Callable, Iterable

from .wire import Reply, Request

Handler = Callable[..., Awaitable[Reply]]
#: Method, path with `{names}`, and what answers it; the names are passed on as keywords.
Route = tuple[str, str, Handler]


class NoRoute(Exception):
    """Nothing is there (404), or not by this method (405)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Routes:
    """A table of routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._table = [
            (method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), handler)
            for method, path, handler in routes
        ]

    async def dispatch(self, request: Request, path: str) -> Reply:
        """Let the handler of `path` answer; raises `NoRoute`."""
        fitting = [(method, match, handler) for method, rule, handler in self._table if (match := rule.fullmatch(path))]
        for method, match, handler in fitting:
            if method == request.method:
                return await handler(request, **match.groupdict())
        if fitting:
            raise NoRoute(405, "Method not allowed")
        raise NoRoute(404, "Not found")
