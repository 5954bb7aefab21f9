"""Child processes start, answer, end, and never outlive the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from jobs.embedded import Command, DidNotStart, Processes

SLEEPS = "import time; time.sleep(60)"
#: ignores SIGTERM and has a child that does so too
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    time.sleep(60)
open(sys.argv[1], "w").close()
time.sleep(60)
"""
#: a parent that starts two children and prints their ids
PARENT = """
import pathlib, sys, time
from jobs.embedded import Command, Processes
folder = pathlib.Path(sys.argv[1])
with Processes(folder / "logs") as processes:
    for name, program in (("one", sys.argv[2]), ("two", sys.argv[3])):
        print(processes.start(Command(name, [sys.executable, "-c", program, str(folder / name)], {}, folder)).pid, flush=True)
    time.sleep(60)
"""


def python(name: str, program: str, folder: Path, *arguments: str) -> Command:
    return Command(name, [sys.executable, "-c", program, *arguments], {}, folder)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(true: Callable[[], bool], seconds: float = 15) -> bool:
    give_up_at = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.02)
    return True


def group_members(pgid: int) -> list[int]:
    found = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == pgid and not gone(pid):
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


def test_a_child_has_a_process_group_of_its_own_and_ends_with_the_context(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        child = processes.start(python("sleeper", SLEEPS, tmp_path))
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
        assert child.is_alive
    assert gone(child.pid)


def test_the_output_of_a_child_goes_to_its_log(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        child = processes.start(python("speaker", "print('hello from the child')", tmp_path))
        assert until(lambda: not child.is_alive)
    assert (tmp_path / "logs" / "speaker.log").read_text() == "hello from the child\n"


def test_a_child_that_ends_before_it_is_ready_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        child = processes.start(python("victim", "raise SystemExit('no port for me')", tmp_path))
        with pytest.raises(DidNotStart, match=r"the victim ended at once.*no port for me"):
            child.await_ready(lambda: False)


def test_waiting_for_a_child_that_never_answers_ends(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        child = processes.start(python("mute", SLEEPS, tmp_path))
        with pytest.raises(DidNotStart, match=r"did not answer within 0.2 s"):
            child.await_ready(lambda: False, seconds=0.2)


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        child = processes.start(python("stubborn", STUBBORN, tmp_path, str(tmp_path / "ready")))
        assert until((tmp_path / "ready").exists)
        assert len(group_members(child.pid)) == 2
        processes.stop(child, seconds=0.2)
        assert until(lambda: not group_members(child.pid), 2)


def test_a_killed_child_can_be_started_again_by_its_command(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        child = processes.start(python("sleeper", SLEEPS, tmp_path))
        processes.kill(child)
        again = processes.start(child.command)
        assert [process.pid for process in processes.running] == [again.pid]


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_end_when_their_parent_is_ended_by_any_signal(tmp_path: Path, number: signal.Signals) -> None:
    with parent_of_two(tmp_path) as (parent, children):
        parent.send_signal(number)
        parent.wait(15)
        assert until(lambda: all(gone(pid) for pid in children))


def test_children_of_a_parent_that_ignores_interrupts_end_with_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with parent_of_two(tmp_path) as (parent, children):
            parent.send_signal(signal.SIGINT)
            parent.terminate()
            assert parent.wait(15) == -signal.SIGTERM
            assert until(lambda: all(gone(pid) for pid in children))
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def parent_of_two(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that has started two children, and the ids of these; all of them end with the block."""
    arguments = [sys.executable, "-c", PARENT, str(folder), SLEEPS, SLEEPS]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout
        children = [int(parent.stdout.readline()) for _ in range(2)]
        try:
            yield parent, children
        finally:
            parent.kill()
            assert until(lambda: all(gone(pid) for pid in children))
