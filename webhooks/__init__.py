"""The receiver: callbacks, the HTTP API, files and health as one Flask application.

Serve it with `granian --interface wsgi --factory webhooks:create_app`, or with any other WSGI server. The path of a callback
contains its token: turn access logs off, or leave the paths out of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from jobs import logs, providers
from jobs.darkroom import Darkroom
from jobs.settings import Settings, environment, provider_settings

from . import api, docs, files, health
from .api import Api
from .callbacks import CallbackHandler
from .problems import add_error_handlers
from .receiver import Receiver
from .waiting import thread_count

__all__ = ["create_app"]

_log = logging.getLogger("darkroom.webhooks")

#: a request waits for Redis for so many seconds before it is answered by a 503
PATIENCE_SECONDS = 1.0
#: a stream of events ends after so many seconds, and its client reconnects
STREAM_SECONDS = 600.0


def create_app(
    settings: Settings | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    threads: int | None = None,
    stream_seconds: float = STREAM_SECONDS,
) -> Receiver:
    """Create the receiver: a WSGI application that should be closed at its end.

    Args:
        settings: Darkroom's settings. Default: those of the environment.
        environ: The environment with the settings of the providers. Default: that of the process.
        threads: How many threads of this process answer requests. Default: GRANIAN_BLOCKING_THREADS, or 4.
        stream_seconds: A stream of events ends after so many seconds.

    Raises:
        SettingsError: A setting is malformed or missing.
    """
    environ = environment() if environ is None else environ
    settings = settings or Settings.read()
    threads = threads or thread_count(environ)
    logs.install(logs.secrets_of(settings, environ))
    logs.configure(settings.log_format)
    secret_keys = settings.signing_keys()
    options = {name: provider_settings(name, environ).options for name in providers.names()}
    for sentence in providers.faults().values():
        _log.error("a provider cannot be used, its callbacks are answered by 503: %s", sentence)

    receiver = Receiver()
    darkroom = Darkroom.open(settings, patience_seconds=PATIENCE_SECONDS)
    receiver.resources.callback(darkroom.close)
    callbacks = CallbackHandler.open(darkroom, options, secret_keys, receiver.resources)
    add_error_handlers(receiver)
    receiver.extensions["darkroom"] = Api.open(darkroom, threads, stream_seconds, receiver.resources)
    receiver.register_blueprint(api.routes)
    receiver.register_blueprint(docs.blueprint())
    receiver.register_blueprint(files.blueprint(darkroom.storage, secret_keys))
    receiver.register_blueprint(health.blueprint(darkroom, callbacks.spool))
    receiver.wsgi_app = DispatcherMiddleware(receiver.wsgi_app, {"/webhooks": callbacks})  # type: ignore[method-assign]  # as Flask documents it
    return receiver
