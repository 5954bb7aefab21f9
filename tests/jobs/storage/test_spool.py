"""The spool: whole files, in the order of their names, up to a limit."""

from __future__ import annotations

import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.storage.spool import Spool, SpoolFull


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 1000)


def test_a_file_can_be_read_until_it_is_deleted(spool: Spool) -> None:
    name = spool.write("job-1-", b"an image")
    assert name.startswith("job-1-")
    assert spool.read(name) == b"an image"
    assert spool.names() == (name,)
    spool.delete(name)
    assert spool.names() == ()
    spool.delete(name)
    with pytest.raises(FileNotFoundError):
        spool.read(name)


def test_a_missing_folder_is_empty(spool: Spool) -> None:
    assert spool.names() == ()
    assert spool.size() == 0


def test_names_are_sorted(spool: Spool) -> None:
    for prefix in ("3-", "1-", "2-"):
        spool.write(prefix, b"x")
    assert [name[:2] for name in spool.names()] == ["1-", "2-", "3-"]


def test_the_same_prefix_twice_is_two_files(spool: Spool) -> None:
    first, second = spool.write("same-", b"1"), spool.write("same-", b"2")
    assert (spool.read(first), spool.read(second)) == (b"1", b"2")


def test_a_write_over_the_limit_is_refused_and_the_rest_is_kept(spool: Spool) -> None:
    name = spool.write("a-", b"x" * 600)
    with pytest.raises(SpoolFull, match="1000 bytes"):
        spool.write("b-", b"x" * 401)
    assert spool.names() == (name,)
    spool.write("c-", b"x" * 400)
    assert spool.size() == 1000


def test_an_unfinished_file_is_not_listed(spool: Spool) -> None:
    name = spool.write("a-", b"x")
    (spool.folder / ".b-half").write_bytes(b"half")
    assert spool.names() == (name,)


def test_a_write_that_fails_leaves_nothing_behind(spool: Spool) -> None:
    spool.write("a-", b"x")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            spool.write("b-", b"x" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert spool.size() == 1


def test_only_its_owner_can_read_it(spool: Spool) -> None:
    spool.write("a-", b"x")
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700


def test_another_process_reads_the_same_files(spool: Spool) -> None:
    name = spool.write("a-", b"x")
    assert Spool(spool.folder, 10).read(name) == b"x"


def test_concurrent_writes_are_all_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20)
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda n: spool.write("same-", str(n).encode()), range(40)))
    assert sorted(spool.names()) == sorted(names)
    assert sorted(int(spool.read(name)) for name in names) == list(range(40))
