import hashlib
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


def test_a_callback_comes_when_the_work_is_done(open_sandbox, receiver):
    vendors = open_sandbox(latency_seconds=0.4)
    started = time.monotonic()
    vendors.deepmode(callback=receiver.url)
    assert time.monotonic() - started < 0.4
    receiver.wait(1)
    assert time.monotonic() - started >= 0.4


def test_the_ledger_knows_the_callback_by_the_digest_of_its_url(vendors, receiver):
    vendors.deepmode(callback=receiver.url)
    receiver.wait(1)
    (entry,) = wait_for(vendors, lambda entries: entries[0]["callbacks"])
    assert entry["callback_sha256"] == hashlib.sha256(receiver.url.encode()).hexdigest()
    assert (entry["callbacks"][0]["status"], entry["callbacks"][0]["step"]) == (200, "completed")
    assert receiver.url not in str(entry)


def wait_for(vendors, condition):
    for _ in range(100):
        entries = vendors.sandbox.submissions()
        if condition(entries):
            return entries
        time.sleep(0.02)
    raise AssertionError(entries)


def test_a_callback_can_be_late(vendors, receiver):
    vendors.sandbox.arm("callback-late=0.3")
    started = time.monotonic()
    vendors.deepmode(callback=receiver.url)
    receiver.wait(1)
    assert time.monotonic() - started >= 0.3


def test_a_submission_without_a_callback_uses_up_no_fault_of_callbacks(vendors, receiver):
    vendors.sandbox.arm("callback-garbage*1")
    vendors.deepmode()
    vendors.deepmode(callback=receiver.url)
    assert receiver.wait(1)[0].json() == {"hello": "world"}


def test_a_callback_can_fail_to_come_at_all(vendors, receiver):
    vendors.sandbox.arm("callback-never")
    vendors.deepmode(callback=receiver.url)
    time.sleep(0.2)
    assert receiver.received == []
    assert vendors.sandbox.submissions()[0]["charged"]


def test_a_callback_can_come_twice(vendors, receiver):
    vendors.sandbox.arm("callback-twice")
    vendors.deepmode(callback=receiver.url)
    first, second = receiver.wait(2)
    assert first.json()["images"][0]["id"] == second.json()["images"][0]["id"]


@pytest.mark.parametrize("vendor", ["deepmode", "phota", "chainhub"])
def test_a_callback_can_come_before_the_answer(open_sandbox, receiver, vendor):
    vendors = open_sandbox(latency_seconds=5, faults=["callback-first"])
    fields = {
        "deepmode": {"callback": receiver.url},
        "phota": {"callback_url": receiver.url, "async": True},
        "chainhub": {"form": {"callback_url": receiver.url}},
    }
    assert vendors.submit(vendor, **fields[vendor]).is_success
    assert len(receiver.received) >= 1


def test_a_callback_comes_although_its_submission_was_dropped(vendors, receiver):
    vendors.sandbox.arm("drop*1")
    with pytest.raises(Exception, match="disconnected"):
        vendors.deepmode(callback=receiver.url)
    assert receiver.wait(1)[0].json()["images"]


def test_a_callback_can_be_broken(vendors, receiver):
    vendors.sandbox.arm("callback-not-json*1")
    vendors.deepmode(callback=receiver.url)
    assert receiver.wait(1)[0].body.startswith(b"<html>")
    vendors.sandbox.arm("callback-garbage*1")
    vendors.deepmode(callback=receiver.url)
    assert receiver.wait(2)[1].json() == {"hello": "world"}


def test_a_callback_can_be_signed_by_another(open_sandbox, receiver):
    vendors = open_sandbox(webhook_secrets={"chainhub": SECRET}, faults=["callback-bad-signature"])
    vendors.chainhub(form={"callback_url": receiver.url})
    for one in receiver.wait(3):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(one.body, one.headers)


def test_a_callback_is_posted_once_unless_told_otherwise(vendors, receiver):
    receiver.status = 503
    vendors.deepmode(callback=receiver.url)
    wait_for(vendors, lambda entries: entries[0]["callbacks"])
    vendors.sandbox.arm("callback-retries=1")
    vendors.deepmode(callback=receiver.url)
    entries = wait_for(vendors, lambda entries: len(entries[1]["callbacks"]) == 2)
    assert [[one["status"] for one in entry["callbacks"]] for entry in entries] == [[503], [503, 503]]


def test_a_callback_to_nobody_is_on_the_books(vendors):
    vendors.deepmode(callback="http://127.0.0.1:1/nobody")
    (entry,) = wait_for(vendors, lambda entries: entries[0]["callbacks"])
    assert (entry["callbacks"][0]["status"], entry["callbacks"][0]["error"]) == (0, "ConnectError")
