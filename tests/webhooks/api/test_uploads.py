"""Uploads."""

from __future__ import annotations

import hashlib
import io
import os
from typing import Any

import PIL.Image
import pytest

from jobs.storage.staged import staged_key
from webhooks.api.uploads import max_bytes

BOUNDARY = "a-boundary"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(content: bytes, name: str = "file", filename: str | None = "a.png", more: bytes = b"") -> dict[str, Any]:
    """The options of a request with one part."""
    named = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\nContent-Type: image/png\r\n\r\n'
    data = head.encode() + content + b"\r\n" + more + f"--{BOUNDARY}--\r\n".encode()
    return {"data": data, "content_type": TYPE["Content-Type"]}


def test_an_image_can_be_used_in_any_image_field(api: Any, darkroom: Any, picture: bytes) -> None:
    uploaded = api.post("/v1/uploads", **form(picture))

    assert uploaded.status_code == 201
    sha256 = hashlib.sha256(picture).hexdigest()
    assert uploaded.json == {
        "reference": f"staged:{sha256}.png",
        "content_type": "image/png",
        "width": 64,
        "height": 48,
        "size": len(picture),
        "sha256": sha256,
    }
    params = {"prompt": "a lake", "image_file": uploaded.json["reference"]}
    enqueued = api.post("/v1/jobs", json={"operation": "chainhub.ideogram-remix", "params": params})
    assert enqueued.status_code == 202
    assert darkroom.get(enqueued.json["id"]).params["image_file"] == uploaded.json["reference"]


def test_a_large_image_is_stored_whole(api: Any, darkroom: Any) -> None:
    content = io.BytesIO()
    PIL.Image.frombytes("RGB", (1024, 1024), os.urandom(3 << 20)).save(content, "PNG")

    answer = api.post("/v1/uploads", **form(content.getvalue()))

    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    assert (answer.status_code, answer.json["sha256"]) == (201, sha256)
    assert darkroom.storage.get(staged_key(sha256, "png")) == content.getvalue()


def test_a_reference_to_nothing_is_refused(api: Any) -> None:
    params = {"prompt": "a lake", "image_file": f"staged:{'0' * 64}.png"}

    answer = api.post("/v1/jobs", json={"operation": "chainhub.ideogram-remix", "params": params})

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "params.image_file")


@pytest.mark.parametrize(
    ("options", "status", "field"),
    [
        (form(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 422, "file"),
        (form(b""), 422, "file"),
        (form(b"x", name="picture"), 422, "picture"),
        (form(b"x", filename=None), 422, "file"),
        ({"data": b"--x--\r\n", "content_type": "multipart/form-data; boundary=x"}, 422, "file"),
        ({"data": b"", "content_type": "multipart/form-data; boundary=x"}, 422, "file"),
        ({"data": b"x", "content_type": "multipart/form-data"}, 400, None),
        ({"data": b"x", "content_type": "multipart/form-data; boundary=" + "x" * 200}, 400, None),
        ({"data": b"{}", "content_type": "application/json"}, 415, None),
    ],
)
def test_anything_but_one_image_is_refused(
    api: Any, darkroom: Any, options: Any, status: int, field: str | None
) -> None:
    answer = api.post("/v1/uploads", **options)

    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert [one["field"] for one in answer.json.get("errors", ())] == ([field] if field else [])
    assert not darkroom.storage.list()


def test_a_second_part_is_refused(api: Any, picture: bytes) -> None:
    more = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="b.png"\r\n\r\nx\r\n'.encode()

    assert api.post("/v1/uploads", **form(picture, more=more)).status_code == 422


def test_a_decompression_bomb_is_refused_by_its_header(api: Any, picture: bytes) -> None:
    bomb = bytearray(picture)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2

    assert api.post("/v1/uploads", **form(bytes(bomb))).status_code == 422


def test_an_upload_counts_as_waiting(new_app: Any, api: Any, picture: bytes) -> None:
    crowded = type(api)(new_app(threads=1).test_client())

    answer = crowded.post("/v1/uploads", **form(picture))

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_a_chunked_upload_is_read_up_to_its_limit(serve: Any, picture: bytes) -> None:
    served, whole = serve(4), form(picture)["data"]
    headers = {"Authorization": "Bearer the-api-key-of-a-test", **TYPE}

    pieces = (whole[at : at + 7] for at in range(0, len(whole), 7))
    status, _, body = served.ask("POST", "/v1/uploads", pieces, headers)
    assert (status, hashlib.sha256(picture).hexdigest() in body.decode()) == (201, True)

    head = whole[: whole.index(b"\r\n\r\n") + 4]
    large = iter([head, *[bytes(1 << 16)] * (max_bytes() // (1 << 16)), bytes(1024)])
    status, answer, _ = served.ask("POST", "/v1/uploads", large, headers)
    assert (status, answer["Content-Type"]) == (413, "application/problem+json")
