"""`darkroom storage init`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import S3

from jobs.cli import run


def test_it_creates_the_folder_and_leaves_an_existing_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    monkeypatch.setenv("DARKROOM_STORAGE_URL", f"file://{folder}")
    assert run(["storage", "init"]) == 0
    assert capsys.readouterr().out == f"file://{folder} created; it can be written and read\n"
    (folder / "kept").touch()
    assert run(["storage", "init"]) == 0
    assert capsys.readouterr().out == f"file://{folder} exists already; it can be written and read\n"
    assert [file.name for file in folder.rglob("*") if file.is_file()] == ["kept"]


def test_it_creates_the_bucket_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], s3: S3
) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    url = f"s3://new-{s3.bucket}"
    monkeypatch.setenv("DARKROOM_STORAGE_URL", url)
    results = []
    for _ in range(2):
        assert run(["storage", "init", "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results == [{"url": url, "created": True}, {"url": url, "created": False}]
    assert s3.client().list_objects_v2(Bucket=f"new-{s3.bucket}")["KeyCount"] == 0


def test_a_storage_that_cannot_be_created_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/file/images")
    assert run(["storage", "init"]) == 1
    assert "correct DARKROOM_STORAGE_URL" in capsys.readouterr().err
