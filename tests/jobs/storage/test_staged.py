"""Staged inputs: an image is stored once under its SHA-256, and its reference leads back to it."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from jobs.errors import InvalidRequest
from jobs.image_file import measure
from jobs.storage import FolderStorage
from jobs.storage.staged import reference_key, stage_image, staged_key


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "images")


def png(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


def test_a_staged_image_is_read_by_its_reference(storage: FolderStorage) -> None:
    content = png("teal")
    sha256 = hashlib.sha256(content).hexdigest()

    reference = stage_image(storage, content, measure(content, max_bytes=1 << 20))

    assert reference == f"staged:{sha256}.png"
    assert reference_key(reference) == staged_key(sha256, "png") == f"staged/{sha256[:2]}/{sha256}.png"
    stored = storage.head(reference_key(reference))
    assert stored is not None
    assert (stored.content_type, stored.sha256) == ("image/png", sha256)
    assert storage.get(stored.key) == content


def test_staging_the_same_image_again_resets_its_age(storage: FolderStorage) -> None:
    content = png("teal")
    facts = measure(content, max_bytes=1 << 20)
    path = storage.root / reference_key(stage_image(storage, content, facts))
    os.utime(path, (1_000_000_000, 1_000_000_000))

    stage_image(storage, content, facts)

    assert path.stat().st_mtime > 1_000_000_000
    assert len(storage.list("staged/")) == 1


@pytest.mark.parametrize(
    "reference", ["staged:../../etc.passwd", "staged:", "staged:.png", "https://example.com/a.png"]
)
def test_a_malformed_reference_never_leads_outside_the_storage(reference: str) -> None:
    with pytest.raises(InvalidRequest):
        reference_key(reference)
