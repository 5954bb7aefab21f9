"""The least that a callback takes: a Flask route that reads one key of Redis, writes one, and checks nothing."""

from __future__ import annotations

import os

from flask import Flask, Response, request
from redis import Redis


def create_app() -> Flask:
    app = Flask(__name__)
    redis = Redis.from_url(os.environ["DARKROOM_REDIS_URL"])

    @app.post("/webhooks/<provider>/<token>")
    def callback(provider: str, token: str) -> Response:
        redis.get(f"bare:{token}")
        redis.set(f"bare:{token}", request.get_data())
        return Response(b'{"kept":true}', content_type="application/json")

    return app
