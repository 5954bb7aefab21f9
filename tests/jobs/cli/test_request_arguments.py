"""The type of a field decides how a text on the command line is read."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import ImageInput
from jobs.cli.request_arguments import read_request, takes_list
from jobs.errors import InvalidRequest
from jobs.request import LocalImage

GENERATE = ("model_id=b8a9", "prompt=a lake at dawn")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    Image.new("RGB", (8, 8), "red").save(file)
    return file


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("operation", "pairs", "field", "value"),
    [
        ("deepmode.generate", (*GENERATE, "num_images=3"), "num_images", 3),
        ("deepmode.generate", (*GENERATE, "upscale=true"), "upscale", True),
        ("deepmode.generate", (*GENERATE, "ratio=square"), "ratio", "square"),
        ("deepmode.generate", ("model_id=17", "prompt=true"), "model_id", "17"),
        ("deepmode.generate", ("model_id=17", "prompt=true"), "prompt", "true"),
        ("deepmode.generate", ("model_id=17", "prompt=a=b"), "prompt", "a=b"),
        ("deepmode.generate", ("model_id=17", "prompt=@home"), "prompt", "@home"),
    ],
)
def test_a_text_is_read_as_the_type_of_its_field(
    operation: str, pairs: tuple[str, ...], field: str, value: Any
) -> None:
    assert getattr(read_request(operation, pairs), field) == value


def test_an_object_is_read_as_json(photo: Path) -> None:
    pairs = (f"image_file=@{photo}", "prompt=p", 'color_palette={"name":"FRESH"}', "seed=7")
    request = read_request("chainhub.ideogram-remix", pairs)
    assert request.model_dump(include={"color_palette", "seed"}, exclude_none=True) == {
        "color_palette": {"name": "FRESH"},
        "seed": 7,
    }


@pytest.mark.parametrize("pairs", [("profile_ids=a", "profile_ids=b"), ('profile_ids=["a","b"]',)])
def test_a_list_is_repeated_or_json(photo: Path, pairs: tuple[str, ...]) -> None:
    images = (f"input_image=@{photo}", "reference_image=https://example.com/style.jpg")
    options = ("num_output_images=1", "output_format=jpg", "response_mode=urls")
    request = read_request("phota.remix", (*images, *options, *pairs))
    assert list(request.model_dump()["profile_ids"]) == ["a", "b"]


@pytest.mark.parametrize(
    "kind", [list[ImageInput], Sequence[ImageInput], tuple[ImageInput, ...], list[ImageInput] | None]
)
def test_one_image_is_a_list_where_the_field_takes_one(kind: Any) -> None:
    assert takes_list(kind)
    assert not takes_list(ImageInput)
    assert not takes_list(ImageInput | None)


def test_the_bytes_of_a_file_are_sent(photo: Path) -> None:
    request = read_request("aimlapi.reve-remix", (f"image_urls=@{photo}", "prompt=p"))
    [(_, _, image)] = request.images()
    assert image == LocalImage(photo.read_bytes())


def test_images_of_a_list_keep_their_order(photo: Path) -> None:
    pairs = (f"image_urls=@{photo}", "image_urls=https://example.com/b.png", "prompt=p")
    images = [image for _, _, image in read_request("aimlapi.reve-remix", pairs).images()]
    assert images == [LocalImage(photo.read_bytes()), "https://example.com/b.png"]


def test_a_json_file_gives_the_fields_and_pairs_override_them(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_text(json.dumps({"model_id": "b8a9", "prompt": "a lake", "num_images": 2}))
    request = read_request("deepmode.generate", ("num_images=5",), file)
    assert request.model_dump(include={"prompt", "num_images"}) == {"prompt": "a lake", "num_images": 5}


def test_an_image_in_a_json_file_is_base64(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_text(json.dumps({"image_urls": [base64.b64encode(png()).decode()], "prompt": "p"}))
    [(_, _, image)] = read_request("aimlapi.reve-remix", (), file).images()
    assert image == LocalImage(png())


@pytest.mark.parametrize(
    ("operation", "pairs", "says"),
    [
        (
            "nobody.paints",
            (),
            r"operation: unknown operation 'nobody.paints'; known are .*aimlapi.reve-remix, .*phota.remix",
        ),
        ("deepmode.generate", ("model_id=b8a9",), "prompt: required"),
        ("deepmode.generate", (*GENERATE, "num_images=9"), "num_images: should be at most 8, not 9"),
        ("deepmode.generate", (*GENERATE, "num_images=many"), "num_images: should be a valid integer, not 'many'"),
        ("deepmode.generate", (*GENERATE, "ratio=round"), "ratio: should be 'portrait' or 'square', not 'round'"),
        ("deepmode.generate", (*GENERATE, "size=9"), "size: unknown field; the fields are model_id, prompt, "),
        ("deepmode.generate", ("prompt",), "-p: should be NAME=VALUE, not 'prompt'"),
        ("aimlapi.reve-remix", ("image_urls=@/no/such.png", "prompt=p"), r"image_urls.*/no/such.png.*cannot be read"),
        (
            "aimlapi.reve-remix",
            ("image_urls=photo.png", "prompt=p"),
            r"image_urls\.0: 'photo.png' is not an https URL; to send a file, write @photo.png",
        ),
    ],
)
def test_an_error_names_the_field_the_value_and_what_is_allowed(
    operation: str, pairs: tuple[str, ...], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_request(operation, pairs)


@pytest.mark.parametrize(
    ("text", "says"), [("[]", "should hold a JSON object"), ("{", "is not JSON"), (None, "cannot be read")]
)
def test_a_params_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "params.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidRequest, match=rf"--params: .*params.json {says}"):
        read_request("deepmode.generate", (), file)
