"""The receiver: a Flask application that keeps secrets out of its log and can be closed."""

from __future__ import annotations

import atexit
import logging
import threading
import traceback
from collections.abc import Iterable
from contextlib import ExitStack
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING

from flask import Flask, request

from .problems import problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_log = logging.getLogger("darkroom.webhooks")

#: a longer path is refused: routing takes time that grows with the square of its slashes
MAX_PATH_CHARACTERS = 8192
#: at most so many exceptions of a chain of causes are named in the log
_MAX_CAUSES = 5


class Receiver(Flask):
    """Darkroom's Flask application. Use it as a context manager, or call `close`, to end its threads and connections.

    An application that is still open when the interpreter exits is closed then.
    """

    def __init__(self) -> None:
        super().__init__("webhooks", static_folder=None)
        self.config.update(PROVIDE_AUTOMATIC_OPTIONS=False)
        #: what `close` ends, the last one first
        self.resources = ExitStack()
        self._closing = threading.Lock()
        atexit.register(self.close)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as a WSGI application does."""
        if len(environ.get("PATH_INFO", "")) > MAX_PATH_CHARACTERS:
            answer = problem(HTTPStatus.REQUEST_URI_TOO_LONG, "The path is too long.")
            return answer(environ, start_response)
        return self.wsgi_app(environ, start_response)

    def close(self) -> None:
        """End the threads and close the connections of this application. It must not be used afterwards."""
        with self._closing:
            atexit.unregister(self.close)
            self.resources.close()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log_exception(
        self, exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> None:
        """Log an exception that no view has handled, by its route: paths contain tokens."""
        if exc_info[1] is not None:
            rule = request.url_rule.rule if request.url_rule else "no route"
            log_failure(f"{request.method} {rule}", exc_info[1])


def log_failure(what: str, error: BaseException) -> None:
    """Log that a request failed: the types of the exception and of its causes, and the stack.

    Their messages are left out, for they may quote paths, tokens and bodies.
    """
    stack = "".join(traceback.format_tb(error.__traceback__))
    names: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(names) < _MAX_CAUSES:
        names.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    _log.error("%s failed: %s\n%s", what, ", caused by ".join(names), stack)
