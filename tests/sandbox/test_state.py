"""What a sandbox still knows after it was killed."""

import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest


@pytest.fixture
def process(tmp_path):
    """Starts `python -m jobs.sandbox` on the same state and port each time."""
    running = []
    port = ["0"]

    def start(*options):
        command = [sys.executable, "-m", "jobs.sandbox", "--port", port[0], "--state", tmp_path / "state.jsonl"]
        one = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        running.append(one)
        url = re.fullmatch(r"sandbox at (http://.*:(\d+))\n", one.stdout.readline())
        port[0] = url[2]
        return one, url[1]

    yield start
    for one in running:
        one.kill()
        one.wait()
        one.stdout.close()


BEARER = {"authorization": "Bearer k"}


def generate(url, **fields):
    body = {"model_id": "m", "prompt": "a lake", **fields}
    return httpx.post(f"{url}/deepmode/api/images/generate", json=body, headers=BEARER)


def without_callbacks(ledger):
    """The ledger but for the callbacks, which may be posted while the second process starts."""
    return {**ledger, "submissions": [{**one, "callbacks": []} for one in ledger["submissions"]]}


def test_books_results_tasks_and_owed_callbacks_outlive_a_kill(process, receiver, make_picture):
    # Given a sandbox with a delivered picture, a running task and a callback still owed
    first, url = process("--image-size", "96")
    image = generate(url).json()["images"][0]
    bytes_before = httpx.get(image["image_url"]).content
    httpx.post(f"{url}/_sandbox/faults", json={"faults": ["callback-late=2.5@deepmode", "latency=0.5@chainhub"]})
    generate(url, callback=receiver.url)
    files, data = {"image_file": ("a.png", make_picture())}, {"image_request": '{"prompt": "beach"}'}
    task = httpx.post(f"{url}/chainhub/ideogram/remix", files=files, data=data, headers=BEARER).json()["data"]
    ledger_before = httpx.get(f"{url}/_sandbox/ledger").json()

    # When it is killed and started again
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    _, again = process("--image-size", "96")

    # Then nothing is forgotten
    assert again == url
    assert httpx.get(image["image_url"]).content == bytes_before
    assert without_callbacks(httpx.get(f"{url}/_sandbox/ledger").json()) == without_callbacks(ledger_before)
    assert receiver.wait(1)[0].json()["images"]
    state = httpx.get(f"{url}/chainhub/ideogram/task/{task['task_id']}", headers=BEARER).json()
    assert state["data"]["task_status"] == "succeed"
    assert httpx.get(state["data"]["task_result"]["images"][0]["url"]).status_code == 200
    generate(url)
    assert [one["number"] for one in httpx.get(f"{url}/_sandbox/ledger").json()["submissions"]] == [1, 2, 3, 4]


def test_a_callback_that_was_posted_is_not_posted_again(open_sandbox, receiver, tmp_path):
    state = tmp_path / "state.jsonl"
    vendors = open_sandbox(state=state)
    vendors.deepmode(callback=receiver.url)
    receiver.wait(1)
    time.sleep(0.1)
    vendors.sandbox.stop()
    open_sandbox(state=state)
    time.sleep(0.2)
    assert len(receiver.received) == 1


def test_a_line_that_a_kill_cut_short_does_no_harm(open_sandbox, tmp_path):
    state = tmp_path / "state.jsonl"
    vendors = open_sandbox(state=state)
    vendors.deepmode()
    vendors.sandbox.stop()
    with state.open("ab") as journal:
        journal.write(b'{"event": "submi')
    again = open_sandbox(state=state)
    again.deepmode()
    again.sandbox.stop()
    assert len(open_sandbox(state=state).sandbox.submissions()) == 2


def test_a_state_file_of_an_earlier_version_is_read(open_sandbox, tmp_path):
    state = tmp_path / "state.jsonl"
    vendors = open_sandbox(state=state)
    vendors.deepmode()
    vendors.sandbox.stop()
    state.write_text(state.read_text().replace('"vendor": "deepmode"', '"provider": "deepmode"'))
    (submission,) = open_sandbox(state=state).sandbox.submissions()
    assert submission["vendor"] == "deepmode"


def test_termination_is_a_clean_end(process):
    one, _ = process()
    one.terminate()
    assert one.wait(5) == 0


def test_a_port_that_is_taken_ends_the_command_with_a_message(process):
    _, url = process()
    command = [sys.executable, "-m", "jobs.sandbox", "--port", url.rpartition(":")[2]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "Error: the port is taken: another program listens on it; choose another one with --port\n"


def test_the_faults_are_listed_with_their_default_values():
    command = [sys.executable, "-m", "jobs.sandbox", "--list-faults"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert ended.returncode == 0
    assert re.search(r"^429-retry-after=1.0 +refused", ended.stdout, re.MULTILINE)


def test_an_unknown_fault_ends_the_command_with_the_known_ones():
    command = [sys.executable, "-m", "jobs.sandbox", "--port", "0", "--fault", "nonsense"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert ended.returncode == 2
    assert "drop" in ended.stderr
