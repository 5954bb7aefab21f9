import base64
import hashlib
import hmac
import io
import time

import pytest
from PIL import Image

CONTENT = {"async": True, "client_request_id": "order-17"}


def test_urls_mode_fills_download_urls(vendors):
    answer = vendors.phota(num_output_images=2)
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"known_subjects", "images", "download_urls"}
    assert (len(body["download_urls"]), body["images"]) == (2, [])
    assert vendors.fetch(body["download_urls"][1]).status_code == 200


@pytest.mark.parametrize(("asked", "kind"), [("jpg", "JPEG"), ("png", "PNG")])
def test_bytes_mode_fills_images_in_the_format_asked(vendors, asked, kind):
    body = vendors.phota(response_mode="bytes", output_format=asked).json()
    assert body["download_urls"] == []
    assert Image.open(io.BytesIO(base64.b64decode(body["images"][0]))).format == kind


def test_a_url_serves_the_format_asked(vendors):
    url = vendors.phota(output_format="png").json()["download_urls"][0]
    assert ".png?" in url
    assert vendors.fetch(url).headers["content-type"] == "image/png"


def test_the_output_follows_the_input_image(vendors, make_picture):
    content = base64.b64encode(make_picture(size=(40, 80))).decode()
    body = vendors.phota(input_image=content, response_mode="bytes").json()
    assert Image.open(io.BytesIO(base64.b64decode(body["images"][0]))).size == (48, 96)


def test_a_known_profile_is_counted_and_costs_more(vendors):
    assert vendors.phota(num_output_images=2).json()["known_subjects"] == {"counts": {}}
    assert vendors.phota(num_output_images=2, profile_ids=["p"]).json()["known_subjects"] == {"counts": {"p": 2}}
    assert [one["amount"] for one in vendors.sandbox.submissions()] == [0.24, 0.3]


def test_only_what_came_is_charged(vendors):
    vendors.sandbox.arm("fewer=2")
    assert len(vendors.phota(num_output_images=3).json()["download_urls"]) == 1
    assert vendors.sandbox.submissions()[0]["amount"] == 0.12


def test_a_missing_key_is_403_and_a_wrong_one_401(vendors):
    missing = vendors.client.post(vendors.url("phota", "/v1/phota/remix"), json={})
    assert (missing.status_code, missing.json()["code"]) == (403, "missing_api_key")
    assert missing.json().keys() == {"code", "detail", "request_id"}
    vendors.key = "wrong"
    assert vendors.phota().status_code == 401


@pytest.mark.parametrize("field", ["aspect_ratio", "base_model", "resolution"])
def test_what_remix_does_not_accept_is_422_as_fastapi_says_it(vendors, field):
    answer = vendors.phota(**{field: "1:1"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == [
        {"loc": ["body", field], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}
    ]


@pytest.mark.parametrize("field", ["input_image", "reference_image", "num_output_images", "output_format"])
def test_what_is_required_is_422_when_missing(vendors, field):
    body = {
        "input_image": "https://example.com/a.jpg",
        "reference_image": "https://example.com/b.jpg",
        "num_output_images": 1,
        "output_format": "jpg",
        "response_mode": "urls",
    }
    del body[field]
    answer = vendors.client.post(vendors.url("phota", "/v1/phota/remix"), json=body, headers={"x-api-key": "k"})
    assert answer.status_code == 422
    assert (answer.json()["detail"][0]["loc"], answer.json()["detail"][0]["type"]) == (["body", field], "missing")


def test_a_data_uri_or_broken_base64_is_refused(vendors, make_picture):
    encoded = base64.b64encode(make_picture()).decode()
    assert vendors.phota(input_image=f"data:image/png;base64,{encoded}").status_code == 400
    assert vendors.phota(input_image="????").status_code == 400
    assert vendors.phota(input_image=base64.b64encode(b"text").decode()).status_code == 400


def test_async_answers_202_and_a_job_to_poll(open_sandbox):
    vendors = open_sandbox(latency_seconds=0.4)
    answer = vendors.phota(**{"async": True})
    job = answer.json()
    assert answer.status_code == 202
    assert job["poll_url"].endswith(f"/phota/v1/phota/jobs/{job['job_id']}")
    poll = f"/v1/phota/jobs/{job['job_id']}"
    assert vendors.get("phota", poll).json()["status"] == "processing"
    time.sleep(0.45)
    done = vendors.get("phota", poll).json()
    assert done["status"] == "completed"
    assert vendors.fetch(done["result"]["download_urls"][0]).status_code == 200


def test_async_knows_urls_only(vendors):
    assert vendors.phota(response_mode="bytes", **{"async": True}).status_code == 422


def test_a_repeated_client_request_id_gets_the_first_job_for_nothing(vendors):
    first, second = vendors.phota(**CONTENT), vendors.phota(**CONTENT)
    assert first.json() == second.json()
    (entry,) = vendors.sandbox.submissions()
    assert (entry["client_request_id"], entry["amount"], entry["details"]["repeats"]) == ("order-17", 0.12, 1)


def test_a_repeated_client_request_id_means_nothing_when_synchronous(vendors):
    vendors.phota(client_request_id="order-17")
    vendors.phota(client_request_id="order-17")
    assert len(vendors.sandbox.submissions()) == 2


def test_a_job_that_was_dropped_on_submission_is_found_again(vendors):
    vendors.sandbox.arm("drop*1")
    with pytest.raises(Exception, match="disconnected"):
        vendors.phota(**CONTENT)
    assert vendors.phota(**CONTENT).status_code == 202
    assert len([one for one in vendors.sandbox.submissions() if one["charged"]]) == 1


def test_an_unknown_job_is_404(vendors):
    assert vendors.get("phota", "/v1/phota/jobs/nobody").status_code == 404


def test_a_callback_is_signed_when_there_is_a_secret(open_sandbox, receiver):
    vendors = open_sandbox(webhook_secrets={"phota": "secret"})
    job = vendors.phota(callback_url=receiver.url, **{"async": True}).json()
    (callback,) = receiver.wait(1)
    expected = hmac.digest(b"secret", callback.body, hashlib.sha256).hex()
    assert callback.headers["x-phota-signature"] == expected
    assert callback.json()["job_id"] == job["job_id"]
    assert callback.json()["status"] == "completed"


def test_a_late_504_is_refunded(open_sandbox):
    vendors = open_sandbox(latency_seconds=0.1, faults=["504"])
    started = time.monotonic()
    assert vendors.phota().status_code == 504
    assert time.monotonic() - started >= 0.1
    assert vendors.sandbox.submissions()[0]["refunded"]


def test_moderation_is_400_with_a_code(vendors):
    vendors.sandbox.arm("moderated")
    answer = vendors.phota()
    assert (answer.status_code, answer.json()["code"]) == (400, "moderated")


def test_images_can_hold_the_urls(vendors):
    vendors.sandbox.arm("images-as-urls")
    body = vendors.phota().json()
    assert "download_urls" not in body
    assert vendors.fetch(body["images"][0]).status_code == 200


def test_a_job_can_fail_and_is_not_charged(vendors):
    vendors.sandbox.arm("job-failed")
    job = vendors.phota(**{"async": True}).json()
    assert vendors.get("phota", f"/v1/phota/jobs/{job['job_id']}").json()["status"] == "failed"
    assert not vendors.sandbox.submissions()[0]["charged"]
