"""`GET /files/<key>`: serves the artifacts of a folder under signed paths that expire. Buckets serve their own."""

from __future__ import annotations

import time
from http import HTTPStatus

from flask import Blueprint, Response, request, send_file

from jobs import InvalidRequest
from jobs.storage import FolderStorage, Storage, verify_path

from .problems import problem

#: a browser may display a stored image, and do nothing else with it even if it mistakes its type
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
    "Cache-Control": "private, max-age=3600, immutable",
    "Referrer-Policy": "no-referrer",
}


def blueprint(storage: Storage, secret_keys: tuple[str, ...]) -> Blueprint:
    """The route; `secret_keys` verify signatures."""
    routes = Blueprint("files", __name__)

    @routes.get("/files/<path:key>")
    def get_file(key: str) -> Response:
        if not isinstance(storage, FolderStorage):
            return problem(HTTPStatus.NOT_FOUND, "This server does not serve files: the storage is a bucket.")
        expires, signature = request.args.get("expires", ""), request.args.get("signature", "")
        if not verify_path(key, expires=expires, signature=signature, secret_keys=secret_keys, now=time.time()):
            detail = "The URL's signature is invalid or has expired. Get the job again for a new URL."
            return problem(HTTPStatus.FORBIDDEN, detail)
        try:
            found = storage.head(key)
        except InvalidRequest:
            found = None
        if found is None:
            return problem(HTTPStatus.NOT_FOUND, "The file does not exist, or was deleted.")
        path = storage.root.absolute() / key
        etag = found.sha256 or True
        response = send_file(path, mimetype=found.content_type, etag=etag, last_modified=found.modified_at)
        response.headers.update(_HEADERS)
        return response

    return routes
