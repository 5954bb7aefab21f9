"""`GET /files/<key>`: the artifacts of a folder, under a path that was signed and expires. Buckets serve their own."""

from __future__ import annotations

import time
from http import HTTPStatus

from flask import Blueprint, Response, request, send_file

from jobs import InvalidRequest
from jobs.storage import FolderStorage, Storage, verify_path

from .problems import problem

#: a stored image does nothing but being looked at, whatever a browser thinks it is
_HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
    "Cache-Control": "private, max-age=3600, immutable",
    "Referrer-Policy": "no-referrer",
}


def blueprint(storage: Storage, keys: tuple[str, ...]) -> Blueprint:
    """The route; with a bucket it finds nothing."""
    routes = Blueprint("files", __name__)

    @routes.get("/files/<path:key>")
    def artifact(key: str) -> Response:
        if not isinstance(storage, FolderStorage):
            return problem(HTTPStatus.NOT_FOUND, "Files are not served here: the storage has URLs of its own.")
        expires, signature = request.args.get("expires", ""), request.args.get("signature", "")
        if not verify_path(key, expires=expires, signature=signature, secret_keys=keys, now=time.time()):
            return problem(
                HTTPStatus.FORBIDDEN, "The signature is not ours, or expired; get the job again for a new URL."
            )
        return _sent(storage, key)

    return routes


def _sent(storage: FolderStorage, key: str) -> Response:
    try:
        found = storage.head(key)
    except InvalidRequest:
        found = None
    if found is None:
        return problem(HTTPStatus.NOT_FOUND, "The file is no longer there.")
    path = storage.root.absolute() / key
    response = send_file(path, mimetype=found.content_type, etag=found.sha256 or True, last_modified=found.modified_at)
    response.headers.update(_HARMLESS)
    return response
