"""Darkroom's receiver: everything that speaks HTTP in, as one Flask application.

`granian --interface wsgi --factory webhooks:create_app` serves it; so does any other WSGI server. The path of a callback
holds its token: leave access logs off, or let them show no paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from jobs import logs, providers
from jobs.darkroom import Darkroom
from jobs.settings import Settings, environment, provider_settings
from jobs.state.api_keys import KeyStore
from jobs.state.rate_limit import RateLimit
from jobs.storage.spool import Spool

from . import api, docs, files, health
from .api import Api
from .auth import ApiKeys
from .callbacks import CallbackHandler, apply_callback
from .problems import add_error_handlers
from .receiver import Receiver
from .spooled import CallbackSpool
from .waiting import WaitingThreads, thread_count

__all__ = ["create_app"]

#: a blip of Redis is sat out for so long before a request is answered 503
PATIENCE_SECONDS = 1.0
#: a stream of events ends after so long, and its client comes back
STREAM_SECONDS = 600.0


def create_app(
    settings: Settings | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    threads: int | None = None,
    stream_seconds: float = STREAM_SECONDS,
) -> Receiver:
    """The WSGI application.

    `environ` holds the providers' own settings (the process's environment by default); `threads` is how many threads of
    this process answer requests, where GRANIAN_BLOCKING_THREADS does not say so; a stream of events ends after
    `stream_seconds`. Raises SettingsError.
    """
    environ = environment() if environ is None else environ
    settings = settings or Settings.read()
    threads = threads or thread_count(environ)
    logs.install(logs.secrets_of(settings, environ))
    logs.configure(settings.log_format)
    secret_keys = settings.signing_keys()
    options = {name: provider_settings(name, environ).options for name in providers.names()}

    receiver = Receiver()
    darkroom = Darkroom.open(settings, patience_seconds=PATIENCE_SECONDS)
    receiver.resources.callback(darkroom.close)
    spool = CallbackSpool(
        Spool(settings.spool_dir / "callbacks", settings.spool_max_bytes), partial(apply_callback, darkroom)
    )
    receiver.resources.callback(spool.close)
    spool.start()
    add_error_handlers(receiver)
    receiver.extensions["darkroom"] = _api(receiver, darkroom, threads, stream_seconds)
    receiver.register_blueprint(api.routes)
    receiver.register_blueprint(docs.blueprint())
    receiver.register_blueprint(files.blueprint(darkroom.storage, secret_keys))
    receiver.register_blueprint(health.blueprint(darkroom, spool))
    callbacks = CallbackHandler(darkroom, options, secret_keys, spool)
    receiver.wsgi_app = DispatcherMiddleware(receiver.wsgi_app, {"/webhooks": callbacks})  # type: ignore[method-assign]
    return receiver


def _api(receiver: Receiver, darkroom: Darkroom, threads: int, stream_seconds: float) -> Api:
    settings = darkroom.settings
    store = KeyStore.open(settings.redis_url)
    receiver.resources.callback(store.close)
    keys = ApiKeys([key.get_secret_value() for key in settings.api_keys], store)
    limit = RateLimit.open(settings.redis_url, settings.rate) if settings.rate else None
    if limit is not None:
        receiver.resources.callback(limit.close)
    return Api(darkroom, keys, limit, WaitingThreads(threads), stream_seconds)
