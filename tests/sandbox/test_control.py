import logging

import pytest

from jobs.sandbox import Sandbox, UnknownFault
from jobs.sandbox.faults import VOCABULARY


def control(vendors, method, path, **kwargs):
    return vendors.client.request(method, f"{vendors.sandbox.url}/_sandbox/{path}", **kwargs)


def test_health(vendors):
    assert control(vendors, "GET", "health").json() == {"status": "ok"}


def test_the_ledger_sums_what_was_charged(vendors):
    vendors.deepmode()
    vendors.deepmode()
    vendors.phota(num_output_images=2)
    vendors.aimlapi()
    assert control(vendors, "GET", "ledger").json()["charged"] == {
        "deepmode": {"credit": 2},
        "phota": {"USD": 0.24},
        "aimlapi": {"token": 210000},
    }


def test_the_ledger_can_leave_out_the_digests(vendors):
    vendors.deepmode()
    assert control(vendors, "GET", "ledger?digests=0").json()["submissions"][0]["images"] is None


def test_faults_are_armed_seen_and_cleared(vendors):
    armed = control(vendors, "POST", "faults", json={"faults": ["drop@phota*2", "latency=1"]}).json()
    assert [one["name"] for one in armed["armed"]] == ["drop", "latency"]
    assert armed["armed"][0]["left"] == 2
    assert armed["known"].keys() == VOCABULARY.keys()
    left = control(vendors, "DELETE", "faults?name=drop").json()
    assert [one["name"] for one in left["armed"]] == ["latency"]
    assert control(vendors, "DELETE", "faults").json()["armed"] == []


@pytest.mark.parametrize("body", [{"faults": ["drop", "nonsense"]}, {"faults": 3}, [], "x"])
def test_a_wrong_fault_arms_nothing(vendors, body):
    answer = control(vendors, "POST", "faults", json=body)
    assert answer.status_code == 400
    assert "drop" in answer.json()["message"] or "expected" in answer.json()["message"]
    assert control(vendors, "GET", "faults").json()["armed"] == []


def test_reset_forgets_everything(vendors):
    url = vendors.aimlapi().json()["data"][0]["url"]
    vendors.fetch(url)
    vendors.sandbox.arm("drop")
    vendors.sandbox.reset()
    assert vendors.sandbox.submissions() == vendors.sandbox.served() == []
    assert vendors.fetch(url).status_code == 404
    assert vendors.aimlapi().status_code == 200


def test_traffic_is_counted(vendors):
    vendors.fetch(vendors.aimlapi().json()["data"][0]["url"])
    traffic = control(vendors, "GET", "traffic").json()
    assert (traffic["requests"]["aimlapi"], traffic["requests"]["files"]) == (1, 1)
    assert traffic["peak_in_flight"] == 1
    assert traffic["callbacks_owed"] == 0


def test_a_path_that_is_no_vendors_names_the_vendors(vendors):
    answer = vendors.fetch(vendors.sandbox.url + "/acme/v1")
    assert answer.status_code == 404
    assert "deepmode" in answer.json()["message"]


def test_a_request_that_is_no_http_is_refused(vendors):
    import socket

    host, port = vendors.sandbox.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_one_line_is_logged_for_a_request_and_no_secret_in_it(vendors, caplog):
    caplog.set_level(logging.INFO, "jobs.sandbox")
    url = vendors.deepmode(prompt="a secret lake").json()["images"][0]["image_url"]
    vendors.fetch(url)
    lines = [record.getMessage() for record in caplog.records if record.name == "jobs.sandbox"]
    assert len(lines) == 2
    assert lines[0].startswith("POST /deepmode/api/images/generate: 200 in ")
    assert not any(word in "".join(lines) for word in ("a-key", "secret lake", "sig="))


def test_a_port_that_is_taken_is_an_error(vendors):
    taken = int(vendors.sandbox.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        Sandbox(port=taken).start()


def test_a_stopped_sandbox_answers_no_more_and_can_start_again(vendors):
    vendors.sandbox.stop()
    with pytest.raises(Exception, match="refused"):
        vendors.deepmode()
    vendors.sandbox.start()
    assert vendors.deepmode().status_code == 200


def test_stopping_does_not_wait_for_calls_in_flight(open_sandbox):
    import threading
    import time

    vendors = open_sandbox(latency_seconds=30)

    def call():
        with pytest.raises(Exception, match="disconnected"):
            vendors.aimlapi()

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.2)
    started = time.monotonic()
    vendors.sandbox.stop()
    thread.join()
    assert time.monotonic() - started < 2


def test_faults_of_the_start_are_checked_at_once():
    with pytest.raises(UnknownFault):
        Sandbox(faults=["nonsense"])


def test_the_environment_points_every_vendor_here(vendors):
    environment = vendors.sandbox.environment
    assert environment["DEEPMODE_BASE_URL"] == vendors.sandbox.base_urls["deepmode"]
    assert environment["AIMLAPI_API_KEY"]
    assert len(environment) == 8
