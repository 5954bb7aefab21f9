import json
import time

import pytest
from standardwebhooks import Webhook

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


def task_of(vendors, answer):
    return vendors.get("chainhub", f"/ideogram/task/{answer.json()['data']['task_id']}")


def test_a_submission_is_answered_by_a_task_envelope(vendors):
    answer = vendors.chainhub()
    body = answer.json()
    assert answer.status_code == 200
    assert body.keys() == {"code", "message", "request_id", "data"}
    assert (body["code"], body["message"], body["data"]["task_status"]) == (0, "SUCCEED", "submitted")
    assert {"task_id", "task_status", "created_at", "updated_at"} <= body["data"].keys()
    assert abs(body["data"]["created_at"] / 1000 - time.time()) < 5


def test_polls_show_the_task_move_on(open_sandbox):
    vendors = open_sandbox(latency_seconds=0.6)
    submitted = vendors.chainhub(num_images=2)
    seen = []
    while not seen or seen[-1] != "succeed":
        answer = task_of(vendors, submitted).json()
        seen.append(answer["data"]["task_status"])
        time.sleep(0.03)
    assert list(dict.fromkeys(seen)) == ["submitted", "processing", "succeed"]
    images = answer["data"]["task_result"]["images"]
    assert [one["index"] for one in images] == [0, 1]
    assert all(vendors.fetch(one["url"]).status_code == 200 for one in images)


def test_a_task_that_is_not_there_has_a_string_for_a_code(vendors):
    answer = vendors.get("chainhub", "/ideogram/task/nobody")
    assert answer.json() == {"code": "task_not_exist", "message": "task_not_exist", "data": None}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"prompt": ""}, "prompt"),
        ({"aspect_ratio": "16:9"}, "aspect_ratio"),
        ({"aspect_ratio": "ASPECT_1_1", "resolution": "RESOLUTION_1024_1024"}, "resolution cannot be used"),
        ({"color_palette": {"name": "BLUE"}}, "color_palette"),
        ({"color_palette": {"members": [{"color_hex": "red"}]}}, "color_hex"),
        ({"image_weight": 0}, "image_weight"),
        ({"num_images": 9}, "num_images"),
        ({"seed": -1}, "seed"),
        ({"style": "ANIME"}, "style"),
    ],
)
def test_a_wrong_field_is_named(vendors, fields, told):
    answer = vendors.chainhub(**fields)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_good_fields_are_accepted(vendors):
    palette = {"members": [{"color_hex": "#FF0000", "color_weight": 0.05}]}
    good = vendors.chainhub(
        aspect_ratio="ASPECT_16_9", color_palette=palette, style_type="ANIME", model="V_2_TURBO", seed=1
    )
    assert good.status_code == 200


def test_the_file_is_checked(vendors, make_picture):
    for image, told in (
        (b"text", "not an image"),
        (make_picture(kind="GIF"), "JPEG, PNG or WebP"),
        (make_picture() + b"\0" * 10 * 1024 * 1024, "10MB"),
    ):
        answer = vendors.chainhub(image)
        assert answer.status_code == 400
        assert told in answer.json()["error"]["message"]


def test_an_unknown_form_field_is_refused(vendors):
    assert vendors.chainhub(form={"prompt": "loose"}).status_code == 400


def test_a_wrong_key_has_the_gateways_shape(vendors):
    vendors.key = "wrong"
    answer = vendors.chainhub()
    assert answer.status_code == 401
    assert answer.json()["error"].keys() == {"message", "message_zh", "type"}


def test_updates_come_for_every_status(vendors, receiver):
    vendors.chainhub(form={"callback_url": receiver.url})
    bodies = [one.json() for one in receiver.wait(3)]
    assert [one["data"]["task_status"] for one in bodies] == ["submitted", "processing", "succeed"]
    assert bodies[-1]["code"] == 0
    assert "webhook-signature" not in receiver.received[0].headers


def test_updates_are_signed_when_there_is_a_secret(open_sandbox, receiver):
    vendors = open_sandbox(webhook_secrets={"chainhub": SECRET})
    vendors.chainhub(form={"callback_url": receiver.url})
    for one in receiver.wait(3):
        assert Webhook(SECRET).verify(one.body, one.headers)


def test_updates_can_be_flat_shuffled_and_repeated(vendors, receiver):
    vendors.sandbox.arm("updates-flat", "updates-shuffled", "updates-repeated")
    vendors.chainhub(form={"callback_url": receiver.url})
    told = [one.json()["task_status"] for one in receiver.wait(9)]
    assert told == ["succeed"] * 3 + ["processing"] * 3 + ["submitted"] * 3


def test_the_images_can_come_at_once(open_sandbox):
    vendors = open_sandbox(latency_seconds=0.1, faults=["sync-body"])
    started = time.monotonic()
    body = vendors.chainhub(num_images=2).json()
    assert time.monotonic() - started >= 0.1
    assert body.keys() == {"created", "data"}
    assert body["data"][0].keys() == {"url", "prompt", "resolution", "seed", "style_type", "is_image_safe"}
    assert len(body["data"]) == 2


def test_a_poll_just_after_the_submit_can_lack_data(vendors):
    vendors.sandbox.arm("no-data=2")
    submitted = vendors.chainhub()
    assert ["data" in task_of(vendors, submitted).json() for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("code", 200, 1303),
        ("code=1301", 200, 1301),
        ("code-429=1102", 429, 1102),
        ("string-code", 400, "task_not_exist"),
    ],
)
def test_a_refusal_can_be_a_code(vendors, fault, status, code):
    vendors.sandbox.arm(fault)
    answer = vendors.chainhub()
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (status, code, None)
    assert not vendors.sandbox.submissions()[0]["charged"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("fetch-failed", 500, "bad_response_status_code"),
        ("upstream-saturated", 403, "upstream_load_saturated"),
        ("user-quota", 403, "insufficient_user_quota"),
    ],
)
def test_a_refusal_can_carry_the_upstreams_json_as_a_string(vendors, fault, status, code):
    vendors.sandbox.arm(fault)
    answer = vendors.chainhub()
    assert (answer.status_code, answer.json()["code"]) == (status, "fail_to_fetch_task")
    assert json.loads(answer.json()["message"])["error"]["code"] == code


def test_a_refusal_can_be_an_error_object_on_http_200(vendors):
    vendors.sandbox.arm("error-object")
    answer = vendors.chainhub()
    assert answer.status_code == 200
    assert "error" in answer.json()


def test_a_task_can_fail_and_is_not_charged(vendors):
    vendors.sandbox.arm("task-failed=no GPU left")
    data = task_of(vendors, vendors.chainhub()).json()["data"]
    assert (data["task_status"], data["task_status_msg"]) == ("failed", "no GPU left")
    assert not vendors.sandbox.submissions()[0]["charged"]


def test_one_image_of_several_can_be_unsafe(vendors):
    vendors.sandbox.arm("unsafe=1")
    images = task_of(vendors, vendors.chainhub(num_images=3)).json()["data"]["task_result"]["images"]
    assert [one.get("is_image_safe", True) for one in images] == [True, False, True]
    assert [bool(one["url"]) for one in images] == [True, False, True]


def test_one_image_of_several_can_have_no_url(vendors):
    vendors.sandbox.arm("empty-url", "sync-body")
    assert [bool(one["url"]) for one in vendors.chainhub(num_images=2).json()["data"]] == [False, True]


def test_statuses_can_be_unknown_or_in_other_words(open_sandbox):
    vendors = open_sandbox(latency_seconds=0.4, faults=["unknown-status@chainhub*1", "other-words"])
    first, second = vendors.chainhub(), vendors.chainhub()
    assert first.json()["data"]["task_status"] == "reviewing"
    assert second.json()["data"]["task_status"] == "queued"
    time.sleep(0.45)
    assert task_of(vendors, second).json()["data"]["task_status"] == "completed"
