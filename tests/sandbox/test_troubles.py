"""What can befall any vendor."""

import threading
import time

import httpx
import pytest

VENDORS = ("deepmode", "chainhub", "phota", "aimlapi")
every_vendor = pytest.mark.parametrize("vendor", VENDORS)


@every_vendor
@pytest.mark.parametrize("status", [400, 401, 402, 403, 429, 500, 502, 503])
def test_a_refusal_costs_nothing(vendors, vendor, status):
    vendors.sandbox.arm(f"{status}@{vendor}*1")
    answer = vendors.submit(vendor)
    assert answer.status_code == status
    assert "retry-after" not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    (entry,) = vendors.sandbox.submissions()
    assert (entry["outcome"], entry["charged"], entry["status"]) == ("refused", False, status)
    assert vendors.submit(vendor).is_success


@every_vendor
def test_too_many_requests_may_say_when_to_come_back(vendors, vendor):
    vendors.sandbox.arm("429-retry-after=3")
    assert vendors.submit(vendor).headers["retry-after"] == "3"


@every_vendor
@pytest.mark.parametrize("fault", ["drop", "reset"])
def test_work_can_be_done_and_charged_and_its_answer_lost(vendors, vendor, fault):
    vendors.sandbox.arm(f"{fault}*1")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        vendors.submit(vendor)
    (entry,) = vendors.sandbox.submissions()
    assert (entry["dropped"], entry["charged"], len(entry["images"])) == (True, True, 1)


@every_vendor
def test_a_connection_can_be_closed_before_any_work(vendors, vendor):
    vendors.sandbox.arm("refuse*1")
    with pytest.raises(httpx.RemoteProtocolError):
        vendors.submit(vendor)
    assert not vendors.sandbox.submissions()[0]["charged"]


@every_vendor
def test_a_body_can_end_early(vendors, vendor):
    vendors.sandbox.arm("truncated*1")
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        vendors.submit(vendor)
    assert vendors.sandbox.submissions()[0]["charged"]


@every_vendor
def test_an_answer_can_be_no_json(vendors, vendor):
    vendors.sandbox.arm("not-json*1")
    answer = vendors.submit(vendor)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")
    assert vendors.sandbox.submissions()[0]["charged"]


@every_vendor
def test_a_500_can_come_after_the_work(vendors, vendor):
    vendors.sandbox.arm("500-late*1")
    assert vendors.submit(vendor).status_code == 500
    (entry,) = vendors.sandbox.submissions()
    assert entry["charged"]
    assert entry["refunded"] is (vendor == "aimlapi")


@every_vendor
def test_a_call_can_hang_until_the_client_gives_up(vendors, vendor):
    vendors.sandbox.arm("hang*1")
    vendors.client.timeout = 0.3
    with pytest.raises(httpx.ReadTimeout):
        vendors.submit(vendor)
    vendors.client.timeout = 5
    (entry,) = vendors.sandbox.submissions()
    assert (entry["dropped"], entry["charged"]) == (True, True)


def test_a_hang_can_end_in_a_closed_connection(vendors):
    vendors.sandbox.arm("hang=0.1*1")
    with pytest.raises(httpx.RemoteProtocolError):
        vendors.aimlapi()


def test_a_client_that_hung_up_missed_its_answer(open_sandbox):
    vendors = open_sandbox(latency_seconds=0.3)
    vendors.client.timeout = 0.1
    with pytest.raises(httpx.ReadTimeout):
        vendors.aimlapi()
    time.sleep(0.4)
    vendors.client.timeout = 5
    (entry,) = vendors.sandbox.submissions()
    assert (entry["dropped"], entry["charged"], entry["status"]) == (True, True, 200)


@pytest.mark.parametrize("vendor", ["deepmode", "phota"])
def test_fewer_images_than_asked_may_come(vendors, vendor):
    vendors.sandbox.arm("fewer")
    count = {"deepmode": "num_images", "phota": "num_output_images"}[vendor]
    vendors.submit(vendor, **{count: 3})
    (entry,) = vendors.sandbox.submissions()
    assert (entry["asked"], entry["made"]) == (3, 2)


def test_latency_can_be_another_for_one_vendor(vendors):
    vendors.sandbox.arm("latency=0.3@phota")
    started = time.monotonic()
    vendors.aimlapi()
    quick = time.monotonic() - started
    vendors.phota()
    assert quick < 0.3 <= time.monotonic() - started


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_poll_can_fail_while_the_task_lives_on(vendors, status):
    path = f"/ideogram/task/{vendors.chainhub().json()['data']['task_id']}"
    vendors.sandbox.arm(f"poll-{status}*1")
    assert vendors.get("chainhub", path).status_code == status
    assert vendors.get("chainhub", path).json()["data"]["task_status"] == "succeed"


@pytest.mark.parametrize("fault", ["poll-drop", "poll-truncated", "poll-hang=0.1"])
def test_a_poll_can_be_cut(vendors, fault):
    path = f"/v1/phota/jobs/{vendors.phota(**{'async': True}).json()['job_id']}"
    vendors.sandbox.arm(f"{fault}*1")
    with pytest.raises(httpx.RemoteProtocolError):
        vendors.get("phota", path)
    assert vendors.get("phota", path).json()["status"] == "completed"


def test_a_poll_can_be_no_json(vendors):
    image = vendors.deepmode().json()["images"][0]
    vendors.sandbox.arm("poll-not-json")
    assert vendors.get("deepmode", f"/api/images/{image['id']}").text.startswith("<html>")


@every_vendor
def test_a_key_can_be_the_only_one(open_sandbox, vendor):
    vendors = open_sandbox(api_key="the-key")
    assert vendors.submit(vendor).status_code == 401
    vendors.key = "the-key"
    assert vendors.submit(vendor).is_success


@every_vendor
def test_a_path_or_method_that_is_not_there_has_the_vendors_shape(vendors, vendor):
    shape = {"deepmode": "message", "chainhub": "error", "phota": "detail", "aimlapi": "message"}[vendor]
    assert shape in vendors.get(vendor, "/nowhere").json()
    paths = {
        "deepmode": "/api/images/generate",
        "chainhub": "/ideogram/remix",
        "phota": "/v1/phota/remix",
        "aimlapi": "/v1/images/generations",
    }
    assert vendors.client.put(vendors.url(vendor, paths[vendor])).status_code == 405


def test_many_slow_calls_are_held_at_once(open_sandbox):
    vendors = open_sandbox(latency_seconds=0.5)
    threads = [threading.Thread(target=vendors.deepmode) for _ in range(40)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 3
    assert len(vendors.sandbox.submissions()) == 40
