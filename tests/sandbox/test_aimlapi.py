import base64
import io

import pytest
from PIL import Image


def test_the_answer_has_a_url_and_its_usage(vendors):
    answer = vendors.aimlapi()
    (image,) = answer.json()["data"]
    assert answer.status_code == 200
    assert image.keys() == {"url", "b64_json", "request_id", "content_violation"}
    assert (image["b64_json"], image["content_violation"]) == (None, False)
    assert answer.json()["meta"] == {"usage": {"tokens_used": 210000}}
    assert vendors.fetch(image["url"]).headers["content-type"] == "image/png"


def test_the_image_can_come_as_base64(vendors):
    (image,) = vendors.aimlapi(convert_base64_to_url=False, aspect_ratio="1:1").json()["data"]
    assert image["url"] is None
    assert Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))).size == (96, 96)


def test_images_are_urls_data_uris_or_base64(vendors, make_picture):
    encoded = base64.b64encode(make_picture()).decode()
    assert vendors.aimlapi(image_urls=[f"data:image/png;base64,{encoded}", encoded]).status_code == 200


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": "reve/other"}, "model"),
        ({"image_urls": []}, "image_urls"),
        ({"image_urls": ["https://example.com/a.png"] * 5}, "image_urls"),
        ({"image_urls": ["no image"]}, "image_urls"),
        ({"prompt": "x" * 2561}, "prompt"),
        ({"aspect_ratio": "5:4"}, "aspect_ratio"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_wrong_field_is_400_in_the_vendors_shape(vendors, fields, told):
    answer = vendors.aimlapi(**fields)
    assert answer.status_code == 400
    assert answer.json().keys() == {"message", "path", "requestId", "statusCode", "timestamp"}
    assert told in answer.json()["message"]


@pytest.mark.parametrize(
    ("fault", "meta"),
    [
        ("credits-used", {"usage": {"credits_used": 210000}}),
        ("no-meta", None),
        ("no-usage", {"usage": None}),
    ],
)
def test_usage_is_told_in_several_ways(vendors, fault, meta):
    vendors.sandbox.arm(fault)
    assert vendors.aimlapi().json()["meta"] == meta


@pytest.mark.parametrize(("fault", "data"), [("data-null", None), ("data-empty", [])])
def test_data_can_be_missing_on_http_200_for_nothing(vendors, fault, data):
    vendors.sandbox.arm(fault)
    answer = vendors.aimlapi()
    assert (answer.status_code, answer.json()["data"]) == (200, data)
    assert not vendors.sandbox.submissions()[0]["charged"]


def test_a_violation_comes_on_http_200_without_an_image(vendors):
    vendors.sandbox.arm("violation")
    (image,) = vendors.aimlapi().json()["data"]
    assert (image["content_violation"], image["url"], image["b64_json"]) == (True, None, None)


def test_throttling_can_look_like_a_500(vendors):
    vendors.sandbox.arm("partner-rate-limit*1", "api-key-500*1")
    throttled, keyless = vendors.aimlapi(), vendors.aimlapi()
    assert (throttled.status_code, throttled.json()["message"]) == (500, "PARTNER_API_TOKEN_RATE_LIMIT_EXCEEDED")
    assert "API key" in keyless.json()["message"]


def test_a_status_code_may_be_a_string(vendors):
    vendors.sandbox.arm("503")
    assert vendors.aimlapi().json()["statusCode"] == "503"


def test_a_timeout_is_never_charged(vendors):
    vendors.sandbox.arm("504")
    answer = vendors.aimlapi()
    assert (answer.status_code, answer.json()["message"]) == (504, "Generation timeout")
    assert vendors.sandbox.submissions()[0]["refunded"]


def test_any_2xx_may_be_good(vendors):
    vendors.sandbox.arm("created")
    assert vendors.aimlapi().status_code == 201
