import hashlib
import io
import time
from xml.etree import ElementTree

import httpx
import pytest
from PIL import Image


@pytest.fixture
def url(vendors):
    return vendors.deepmode().json()["images"][0]["image_url"]


def test_the_served_bytes_are_on_the_books(vendors, url):
    served = vendors.fetch(url)
    digest = hashlib.sha256(served.content).hexdigest()
    (entry,) = vendors.sandbox.served()
    assert (entry["sha256"], entry["size"], entry["genuine"]) == (digest, len(served.content), True)
    assert vendors.sandbox.submissions()[0]["images"] == [digest]


def test_an_inline_image_is_on_the_books(vendors):
    vendors.phota(response_mode="bytes")
    (entry,) = vendors.sandbox.served()
    assert entry["inline"]
    assert [entry["sha256"]] == vendors.sandbox.submissions()[0]["images"]


def test_a_url_that_was_encoded_anew_is_refused_as_azure_does(vendors, url):
    for altered in (url.replace("%3A", ":"), url.replace("%3D", "="), url.replace("%3A", "%3a"), url + "&x=1"):
        refused = raw_get(altered)
        assert refused.startswith(b"HTTP/1.1 403")
        assert b"<Code>AuthenticationFailed</Code>" in refused
    assert raw_get(url).startswith(b"HTTP/1.1 200")


def raw_get(url):
    """A request whose target is exactly the text after the authority."""
    import socket

    authority, _, rest = url.removeprefix("http://").partition("/")
    host, port = authority.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /{rest} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("vendor", ["deepmode", "chainhub", "phota", "aimlapi"])
def test_every_vendors_url_ends_some_day(open_sandbox, vendor):
    vendors = open_sandbox(result_life_seconds=0.15, faults=["sync-body"])
    url = first_url(vendors.submit(vendor))
    assert vendors.fetch(url).status_code == 200
    time.sleep(0.2)
    gone = vendors.fetch(url)
    assert gone.status_code == 403
    assert ElementTree.fromstring(gone.content.decode("utf-8-sig")).tag == "Error"


def first_url(answer):
    body = answer.json()
    if body.get("images"):
        return body["images"][0]["image_url"]
    return body["download_urls"][0] if "download_urls" in body else body["data"][0]["url"]


def test_a_clock_ahead_makes_fresh_urls_wait(vendors):
    vendors.sandbox.arm("clock-skew=1.5")
    url = vendors.deepmode().json()["images"][0]["image_url"]
    assert vendors.fetch(url).status_code == 403
    time.sleep(1.5)
    assert vendors.fetch(url).status_code == 200


def test_an_expired_url_may_be_good_the_next_time(vendors, url):
    vendors.sandbox.arm("result-expired*1")
    assert [vendors.fetch(url).status_code for _ in range(2)] == [403, 200]
    assert [one["genuine"] for one in vendors.sandbox.served()] == [False, True]


@pytest.mark.parametrize(("fault", "status"), [("result-404", 404), ("result-500", 500)])
def test_a_result_can_answer_an_error(vendors, url, fault, status):
    vendors.sandbox.arm(fault)
    assert vendors.fetch(url).status_code == status


@pytest.mark.parametrize("fault", ["result-truncated", "result-drop"])
def test_a_result_can_end_early(vendors, url, fault):
    vendors.sandbox.arm(f"{fault}*1")
    with pytest.raises(httpx.RemoteProtocolError):
        vendors.fetch(url)
    assert vendors.fetch(url).status_code == 200


@pytest.mark.parametrize("fault", ["result-not-image", "result-empty"])
def test_a_result_can_be_no_image(vendors, url, fault):
    vendors.sandbox.arm(fault)
    answer = vendors.fetch(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert not answer.content.startswith(b"\xff\xd8")


def test_a_result_can_be_huge(vendors, url):
    vendors.sandbox.arm("result-huge=3")
    assert len(vendors.fetch(url).content) > 3_000_000


def test_a_result_can_be_endless(vendors, url):
    vendors.sandbox.arm("result-endless*1")
    taken = 0
    with vendors.client.stream("GET", url) as answer:
        assert "content-length" not in answer.headers
        for chunk in answer.iter_bytes():
            taken += len(chunk)
            if taken > 2_000_000:
                break
    assert vendors.fetch(url).status_code == 200


def test_a_result_can_be_a_bomb(vendors, url):
    vendors.sandbox.arm("result-bomb")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(vendors.fetch(url).content))


def test_a_result_can_be_another_format_than_it_says(vendors, url):
    vendors.sandbox.arm("result-png")
    answer = vendors.fetch(url)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content.startswith(b"\x89PNG")


def test_a_result_can_redirect_to_a_private_address(vendors, url):
    vendors.sandbox.arm("result-redirect*1", "result-redirect=http://10.0.0.1/x*1")
    targets = [vendors.fetch(url).headers["location"] for _ in range(2)]
    assert targets == ["http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/x"]


def test_a_result_can_redirect_honestly(vendors, url):
    vendors.sandbox.arm("result-bounce")
    answer = vendors.client.get(url, follow_redirects=True)
    assert (answer.status_code, len(answer.history)) == (200, 1)


def test_a_result_can_be_slow(vendors, url):
    vendors.sandbox.arm("result-slow=0.2")
    started = time.monotonic()
    assert vendors.fetch(url).status_code == 200
    assert time.monotonic() - started >= 0.2


def test_an_inline_image_can_be_none(vendors):
    import base64

    vendors.sandbox.arm("result-not-image")
    (encoded,) = vendors.phota(response_mode="bytes").json()["images"]
    assert base64.b64decode(encoded).startswith(b"<html>")


def test_an_unknown_file_is_not_found(vendors):
    assert vendors.fetch(vendors.sandbox.url + "/files/deepmode/x/nothing.jpeg").status_code == 404


def test_a_file_cannot_be_posted_to(vendors, url):
    assert vendors.client.post(url).status_code == 405


def test_the_head_of_a_file_has_no_body(vendors, url):
    head = vendors.client.head(url)
    assert int(head.headers["content-length"]) > 0
    assert vendors.fetch(url).status_code == 200
