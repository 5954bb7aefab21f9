"""What a request says of its own faults: all at once, each with what to do, and never a prompt or an image."""

from __future__ import annotations

import base64
import errno
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from jobs import InvalidRequest
from jobs.providers import aimlapi, chainhub, deepmode
from jobs.request import LocalImage

CANARY = "a canary that nobody may see"
URL = "https://example.com/photo.jpg"


def faults(model: type[BaseModel], fields: dict[str, Any]) -> dict[str, str]:
    """The messages by field, after a call of the model itself."""
    with pytest.raises(InvalidRequest) as error:
        model(**fields)
    assert isinstance(error.value, ValueError)
    assert str(error.value).splitlines() == [str(one) for one in error.value.errors]
    return {one.field: one.message for one in error.value.errors}


def test_all_faults_are_listed_at_once() -> None:
    assert faults(deepmode.Generate, {"modelid": "b8a9", "prompt": "", "num_images": 9, "ratio": "round"}) == {
        "model_id": "required",
        "prompt": "should have at least 1 character",
        "num_images": "should be at most 8, not 9",
        "ratio": "should be 'portrait' or 'square', not 'round'",
        "modelid": 'unknown field; did you mean "model_id"?',
    }


def test_a_field_that_resembles_none_is_answered_with_all_names() -> None:
    wrong = faults(deepmode.Generate, {"model_id": "b8a9", "prompt": "p", "xyz": 1})
    assert wrong == {"xyz": f"unknown field; the fields are {', '.join(deepmode.Generate.model_fields)}"}


def test_a_misspelt_field_of_a_nested_model_is_compared_with_its_neighbors() -> None:
    fields = {"image_file": URL, "prompt": "p", "color_palette": {"members": [{"colorhex": "#FF0000"}]}}
    assert faults(chainhub.IdeogramRemix, fields) == {
        "color_palette.members.0.color_hex": "required",
        "color_palette.members.0.colorhex": 'unknown field; did you mean "color_hex"?',
    }


def test_a_misspelt_value_is_answered_with_the_nearest_allowed_one() -> None:
    wrong = faults(deepmode.Generate, {"model_id": "b8a9", "prompt": "p", "ratio": "sqare"})
    assert wrong == {"ratio": "should be 'portrait' or 'square', not 'sqare'; did you mean \"square\"?"}


@pytest.mark.parametrize("ratio", [7, None, True, ["square"]])
def test_a_value_of_another_type_resembles_no_name(ratio: Any) -> None:
    wrong = faults(deepmode.Generate, {"model_id": "b8a9", "prompt": "p", "ratio": ratio})
    assert wrong["ratio"].startswith("should be 'portrait' or 'square'")
    assert "did you mean" not in wrong["ratio"]


def test_types_are_named_in_the_words_of_json() -> None:
    assert faults(aimlapi.ReveRemix, {"image_urls": None, "prompt": "p"}) == {"image_urls": "should be a list"}
    assert faults(aimlapi.ReveRemix, {"image_urls": URL, "prompt": "p"}) == {"image_urls": "should be a list"}
    palette = {"image_file": URL, "prompt": "p", "color_palette": ["FRESH"], "num_images": 0}
    assert faults(chainhub.IdeogramRemix, palette) == {
        "color_palette": "should be an object",
        "num_images": "should be at least 1, not 0",
    }


class Unreadable:
    """A file whose disk fails."""

    def read(self) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Unreadable(), "the file object cannot be read: Input/output error"),
        ("photo.jpg", "'photo.jpg' is not an https URL; to send a file, pass pathlib.Path('photo.jpg')"),
        (Path("/no/such.png"), "the file /no/such.png cannot be read: No such file or directory"),
        (io.StringIO("text"), "the file object is not in binary mode; open it with mode 'rb'"),
        (7, "int is not an image; pass an https URL, bytes, a pathlib.Path or a file object"),
        ("https:///photo.jpg", "the URL has no host; write it as https://example.com/photo.jpg"),
        ("https://example.com/a b", "the URL has spaces, control characters or letters outside ASCII; percent-encode"),
        ("x" * 81, "a text of 81 characters is not an https URL; pass the bytes of an image as bytes"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_an_image_that_cannot_be_read_says_what_to_pass(image: Any, message: str) -> None:
    wrong = faults(aimlapi.ReveRemix, {"image_urls": [URL, image], "prompt": "p"})
    assert list(wrong) == ["image_urls.1"]
    assert wrong["image_urls.1"].startswith(message)


def test_neither_prompts_nor_images_nor_unknown_fields_are_repeated() -> None:
    fields = {
        "image_urls": [f"https://example.com/{CANARY}", base64.b64encode(CANARY.encode() * 9).decode()],
        "prompt": [CANARY],
        "promt": CANARY,
    }
    with pytest.raises(InvalidRequest) as error:
        aimlapi.ReveRemix(**fields)  # type: ignore[arg-type]
    assert len(error.value.errors) == 4
    told = f"{error.value} {error.value!r} {error.value.errors}"
    assert CANARY not in told
    assert base64.b64encode(CANARY.encode()).decode()[:20] not in told


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(InvalidRequest) as error:
        deepmode.Generate(model_id="b8a9", prompt="p", ratio="x" * 1000)  # type: ignore[arg-type]
    assert [len(one.value) for one in error.value.errors] == [80]


@pytest.mark.parametrize("read", ["validate", "validate_json", "adapter"])
def test_json_is_checked_by_the_same_rules(read: str) -> None:
    """A model that holds a request keeps pydantic's own error, with the whole path."""
    model = aimlapi.ReveRemix
    if read == "validate":
        with pytest.raises(InvalidRequest, match=r"image_urls\.0: not an https URL, an upload reference"):
            model.model_validate({"image_urls": ["-"], "prompt": "p"}, context={"base64_images": True})
    elif read == "validate_json":
        with pytest.raises(InvalidRequest, match=r"image_urls\.0: not an https URL, an upload reference"):
            model.model_validate_json('{"image_urls": ["-"], "prompt": "p"}')
    else:
        with pytest.raises(ValidationError) as error:
            TypeAdapter(list[model]).validate_json('[{"image_urls": ["-"]}]')  # type: ignore[valid-type]
        assert [fault["loc"] for fault in error.value.errors()] == [(0, "image_urls", 0), (0, "prompt")]


def test_base64_reaches_a_nested_request_by_the_context() -> None:
    fields = {"image_urls": [base64.b64encode(b"bytes").decode()], "prompt": "p"}
    [request] = TypeAdapter(list[aimlapi.ReveRemix]).validate_python([fields], context={"base64_images": True})
    assert list(request.image_urls) == [LocalImage(b"bytes")]


def test_the_error_survives_a_process_boundary() -> None:
    with pytest.raises(InvalidRequest) as error:
        deepmode.Generate(model_id="", prompt="p")
    again = pickle.loads(pickle.dumps(error.value))
    assert (str(again), again.errors) == (str(error.value), error.value.errors)
