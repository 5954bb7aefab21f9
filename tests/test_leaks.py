"""A test that leaves something running fails."""

from __future__ import annotations

import subprocess
import threading

import pytest
from leaks import no_leaks


def test_a_thread_that_goes_on_is_a_leak() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")

    with pytest.raises(AssertionError, match="thread forgotten"), no_leaks(seconds=0):
        thread.start()

    end.set()
    thread.join()


def test_a_child_process_that_goes_on_is_a_leak() -> None:
    children: list[subprocess.Popen[bytes]] = []
    try:
        with pytest.raises(AssertionError, match=r"process \d+"), no_leaks(seconds=0):
            children.append(subprocess.Popen(["sleep", "60"]))
    finally:
        children[0].kill()
        children[0].wait()


def test_what_ends_soon_is_no_leak() -> None:
    with no_leaks():
        threading.Timer(0.1, lambda: None).start()
        subprocess.run(["true"], check=True)
