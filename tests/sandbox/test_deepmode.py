import time
from urllib.parse import urlsplit

import pytest

IMAGE_FIELDS = {"id", "file_name", "model_id", "image_url", "prompt", "negative_prompt", "upscaled", "ratio"}


def test_generate_answers_all_images_when_no_callback_is_given(vendors):
    answer = vendors.deepmode(num_images=3, negative_prompt="fog", upscale=True, ratio="square")

    images = answer.json()["images"]
    assert answer.status_code == 200
    assert answer.json().keys() == {"images"}
    assert len({one["id"] for one in images}) == 3
    assert all(one.keys() == IMAGE_FIELDS for one in images)
    assert images[0]["negative_prompt"] == "fog"
    assert images[0]["upscaled"] is True


def test_generate_echoes_portrait_whatever_was_asked(vendors):
    assert vendors.deepmode(ratio="square").json()["images"][0]["ratio"] == "portrait"


def test_generate_with_a_callback_is_acknowledged_without_any_id(vendors, receiver):
    answer = vendors.deepmode(callback=receiver.url + "/token")

    assert answer.json() == {"message": "Generating images..."}
    (callback,) = receiver.wait(1)
    assert callback.path == "/hook/token"
    assert callback.json()["images"][0].keys() == IMAGE_FIELDS


def test_a_result_url_looks_like_azures(vendors):
    url = urlsplit(vendors.deepmode().json()["images"][0]["image_url"])
    assert url.path.endswith(".jpeg")
    assert "%3A" in url.query
    assert url.query.endswith("%3D")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"num_images": 9}, "num_images"),
        ({"num_images": "3"}, "num_images"),
        ({"prompt": ""}, "prompt"),
        ({"ratio": "wide"}, "ratio"),
        ({"callback": "no url"}, "callback"),
        ({"size": 3}, "size"),
    ],
)
def test_generate_names_the_field_that_is_wrong(vendors, fields, told):
    answer = vendors.deepmode(**fields)
    assert answer.status_code == 400
    assert told in answer.json()["message"]


def test_face_id_remix_answers_one_flat_object(vendors):
    answer = vendors.face_id_remix(prompt="cartoon")
    assert answer.json().keys() == {"id", "file_name", "status", "created_at", "image_url"}
    assert answer.json()["status"] == "completed"
    assert vendors.fetch(answer.json()["image_url"]).headers["content-type"] == "image/jpeg"


def test_face_id_remix_wants_three_images(vendors, make_picture):
    some = vendors.face_id_remix({"identity_image": make_picture(), "artwork_image": make_picture()})
    assert (some.status_code, some.json()) == (400, {"message": "mask_image: a file is required"})
    bad = vendors.face_id_remix(dict.fromkeys(("identity_image", "artwork_image", "mask_image"), b"text"))
    assert (bad.status_code, bad.json()) == (400, {"message": "identity_image: not an image"})


def test_face_id_remix_refuses_an_unknown_mode(vendors):
    assert vendors.face_id_remix(mode="later").status_code == 400


def test_face_id_remix_in_async_mode_is_looked_up_by_its_image(open_sandbox):
    vendors = open_sandbox(latency_seconds=0.2)
    answer = vendors.face_id_remix(mode="async").json()
    assert answer["status"] == "processing"
    assert "image_url" not in answer

    time.sleep(0.25)
    later = vendors.get("deepmode", f"/api/images/{answer['id']}").json()
    assert later["status"] == "completed"
    assert vendors.fetch(later["image_url"]).status_code == 200


def test_face_id_remix_in_async_mode_calls_back_one_flat_object(vendors, receiver):
    vendors.face_id_remix(mode="async", callback=receiver.url)
    assert receiver.wait(1)[0].json()["status"] == "completed"


def test_an_image_is_minted_again_by_its_id(open_sandbox):
    vendors = open_sandbox(result_life_seconds=0.2)
    first = vendors.deepmode().json()["images"][0]
    time.sleep(0.25)
    assert vendors.fetch(first["image_url"]).status_code == 403

    again = vendors.get("deepmode", f"/api/images/{first['id']}").json()
    assert again.keys() == IMAGE_FIELDS
    assert again["image_url"] != first["image_url"]
    assert vendors.fetch(again["image_url"]).status_code == 200


def test_an_image_of_another_vendor_is_not_found(vendors):
    rsid = vendors.aimlapi().json()["data"][0]["request_id"]
    assert vendors.get("deepmode", f"/api/images/{rsid.removeprefix('rsid-')}").status_code == 404


@pytest.mark.parametrize("key", ["", "wrong"])
def test_a_wrong_key_is_refused(vendors, key):
    vendors.key = key
    assert vendors.deepmode().status_code == 401


def test_both_operations_cost_one_credit(vendors):
    vendors.deepmode(num_images=4)
    vendors.face_id_remix()
    assert [(one["amount"], one["unit"]) for one in vendors.sandbox.submissions()] == [(1, "credit"), (1, "credit")]


def test_a_callback_can_be_one_flat_image(vendors, receiver):
    vendors.sandbox.arm("callback-flat")
    vendors.deepmode(callback=receiver.url)
    assert receiver.wait(1)[0].json().keys() == IMAGE_FIELDS
