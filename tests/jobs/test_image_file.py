"""What a picture is, against Pillow's own writers and decoders."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from jobs import image_file
from jobs.image_file import DataAppended, Facts, ImageCutShort, ImageTooLarge, NotAnImage, RejectedImage

MAX_BYTES = 1 << 20


def painted(kind: str, size: tuple[int, int] = (61, 37), mode: str = "RGB", **options: Any) -> bytes:
    image = Image.effect_noise(size, 80).convert(mode)
    if options.get("append_images"):
        options["append_images"] = [Image.effect_noise(size, 40 + 10 * n).convert(mode) for n in range(3)]
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def exif_with_thumbnail() -> bytes:
    return b"Exif\x00\x00" + painted("JPEG", (16, 16))


WRITERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a jpg": ("image/jpeg", lambda: painted("JPEG")),
    "a gray jpg": ("image/jpeg", lambda: painted("JPEG", mode="L")),
    "a cmyk jpg": ("image/jpeg", lambda: painted("JPEG", mode="CMYK")),
    "a progressive jpg": ("image/jpeg", lambda: painted("JPEG", progressive=True, quality=95)),
    "a jpg with restarts": ("image/jpeg", lambda: painted("JPEG", restart_marker_blocks=1)),
    "a jpg with a thumbnail": ("image/jpeg", lambda: painted("JPEG", exif=exif_with_thumbnail())),
    "a jpg with a comment": ("image/jpeg", lambda: painted("JPEG", comment=b"\xff\xd9<html>")),
    "a multi-picture jpg": ("image/jpeg", lambda: painted("MPO", save_all=True, append_images=True)),
    "a png": ("image/png", lambda: painted("PNG")),
    "a palette png": ("image/png", lambda: painted("PNG", mode="P")),
    "a transparent png": ("image/png", lambda: painted("PNG", mode="RGBA")),
    "an animated png": ("image/png", lambda: painted("PNG", save_all=True, append_images=True)),
    "a lossy webp": ("image/webp", lambda: painted("WEBP")),
    "a lossless webp": ("image/webp", lambda: painted("WEBP", lossless=True)),
    "a transparent webp": ("image/webp", lambda: painted("WEBP", mode="RGBA")),
    "a webp with EXIF": ("image/webp", lambda: painted("WEBP", exif=b"Exif\x00\x00odd")),
    "an animated webp": ("image/webp", lambda: painted("WEBP", save_all=True, append_images=True)),
    "a gif": ("image/gif", lambda: painted("GIF", mode="P")),
    "an animated gif": (
        "image/gif",
        lambda: painted("GIF", mode="P", save_all=True, append_images=True, comment=b"hi"),
    ),
}
ONE_OF_EACH = ["a jpg", "a png", "a lossy webp", "a gif"]
EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/gif": "gif"}


def written(name: str) -> bytes:
    return WRITERS[name][1]()


@pytest.mark.parametrize("name", WRITERS)
def test_the_facts_of_a_picture_are_those_that_pillow_reads(name: str) -> None:
    content = written(name)

    facts = image_file.inspect(content, max_bytes=MAX_BYTES)

    with Image.open(io.BytesIO(content)) as image:
        assert (facts.width, facts.height) == image.size == (61, 37)
    assert facts.content_type == WRITERS[name][0]
    assert facts.extension == EXTENSIONS[facts.content_type]
    assert facts.size == len(content)
    assert facts.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "a multi-picture jpg"])
def test_a_picture_cut_short_anywhere_is_refused(name: str) -> None:
    content = written(name)

    for length in range(len(content)):
        with pytest.raises((ImageCutShort, NotAnImage)) as refused:
            image_file.inspect(content[:length], max_bytes=MAX_BYTES)
        assert refused.value.refetchable


def test_a_multi_picture_jpg_can_only_be_cut_between_its_pictures() -> None:
    content = written("a multi-picture jpg")

    accepted = {content[:length].rstrip(b"\x00")[-2:] for length in range(len(content)) if accepts(content[:length])}

    assert accepted == {b"\xff\xd9"}


def accepts(content: bytes) -> bool:
    try:
        image_file.inspect(content, max_bytes=MAX_BYTES)
    except (ImageCutShort, NotAnImage):
        return False
    return True


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_download_that_stopped_halfway_is_called_cut_short(name: str) -> None:
    content = written(name)

    with pytest.raises(ImageCutShort, match=f"ends early, after {len(content) // 2} bytes"):
        image_file.inspect(content[: len(content) // 2], max_bytes=MAX_BYTES)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize(
    "payload",
    [
        b"<script>alert(1)</script>",
        b"PK\x03\x04" + bytes(40),
        b"%PDF-1.7\n",
        b"#!/bin/sh\n",
        bytes(512) + b"<html>",
        b"\xff\xd8 no picture",
        b"\xff\xd9",
    ],
)
def test_a_picture_with_something_else_behind_it_is_refused(name: str, payload: bytes) -> None:
    with pytest.raises(DataAppended, match="bytes follow the end"):
        image_file.inspect(written(name) + payload, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("padding", [b"\n", b"\r\n", bytes(1000)])
def test_padding_behind_a_picture_is_accepted(name: str, padding: bytes) -> None:
    assert image_file.inspect(written(name) + padding, max_bytes=MAX_BYTES).width == 61


def test_further_whole_jpegs_behind_a_jpeg_are_accepted_but_nothing_behind_them() -> None:
    camera = painted("JPEG", (61, 37)) + bytes(100) + painted("JPEG", (160, 120)) + bytes(7)

    assert image_file.inspect(camera, max_bytes=MAX_BYTES).width == 61
    with pytest.raises(DataAppended):
        image_file.inspect(camera + b"<html>", max_bytes=MAX_BYTES)
    with pytest.raises(ImageCutShort):
        image_file.inspect(camera[:-40], max_bytes=MAX_BYTES)
    with pytest.raises(ImageTooLarge):
        image_file.inspect(camera, max_bytes=MAX_BYTES, max_pixels=10_000)


@pytest.mark.parametrize(
    ("content", "called"),
    [
        (b"", "an unknown format of 0 bytes"),
        (b"<!doctype html><title>502 Bad Gateway</title>", "markup"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "markup"),
        (b"\xef\xbb\xbf <svg onload=alert(1)>", "SVG"),
        (b'{"error": "expired"}', "JSON"),
        (b"%PDF-1.7", "PDF"),
        (b"II*\x00" + bytes(20), "TIFF"),
        (b"\x00\x00\x00\x20ftypavif", "AVIF"),
        (b"BM" + bytes(60), "BMP"),
        (b"GIF88a" + bytes(20), "an unknown format"),
        (b"RIFF\x04\x00\x00\x00WAVE", "an unknown format"),
    ],
)
def test_whatever_else_comes_is_named_and_refused(content: bytes, called: str) -> None:
    assert image_file.recognize(content) is None
    with pytest.raises(NotAnImage, match=called) as refused:
        image_file.inspect(content, max_bytes=MAX_BYTES)
    assert "expired" not in str(refused.value)
    assert "alert" not in str(refused.value)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def jpeg_of(width: int, height: int) -> bytes:
    content = painted("JPEG", (61, 37))
    return content.replace(struct.pack(">HH", 37, 61), struct.pack(">HH", height, width), 1)


def gif_of(width: int, height: int) -> bytes:
    content = bytearray(painted("GIF", mode="P"))
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


def webp_of(width: int, height: int) -> bytes:
    content = painted("WEBP")
    return content.replace(struct.pack("<HH", 61, 37), struct.pack("<HH", width, height), 1)


BOMBS = {
    "jpg": jpeg_of(65_000, 65_000),
    "png": png(png_header(100_000, 100_000), png_chunk(b"IDAT", zlib.compress(bytes(1000)))),
    "gif": gif_of(60_000, 60_000),
    "webp": webp_of(16_000, 16_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_decompression_bomb_is_refused_by_its_header(kind: str) -> None:
    started = time.process_time()

    with pytest.raises(ImageTooLarge, match=r"\d+ x \d+ pixels; at most 100000000 are allowed"):
        image_file.inspect(BOMBS[kind], max_bytes=MAX_BYTES)

    assert time.process_time() - started < 0.1


def test_a_gif_whose_frame_reaches_beyond_its_screen_counts_with_the_frame() -> None:
    assert image_file.inspect(gif_of(1, 1), max_bytes=MAX_BYTES).width == 61


def test_a_webp_animation_counts_with_the_pictures_inside_its_frames() -> None:
    content = painted("WEBP", save_all=True, append_images=True)
    bomb = content.replace(struct.pack("<HH", 61, 37), struct.pack("<HH", 16_000, 16_000))
    assert bomb != content

    with pytest.raises(ImageTooLarge):
        image_file.inspect(bomb, max_bytes=MAX_BYTES)


def test_the_limits_are_inclusive() -> None:
    content = written("a png")

    assert image_file.inspect(content, max_bytes=len(content), max_pixels=61 * 37).width == 61
    with pytest.raises(ImageTooLarge, match=f"{len(content)} bytes; at most {len(content) - 1} are allowed"):
        image_file.inspect(content, max_bytes=len(content) - 1)
    with pytest.raises(ImageTooLarge, match="61 x 37"):
        image_file.inspect(content, max_bytes=MAX_BYTES, max_pixels=61 * 37 - 1)


BROKEN = {
    "a png damaged on the way": written("a png")[:200] + b"\x00\x01\x02" + written("a png")[203:],
    "a png without data": png(png_header(1, 1)),
    "a png of no width": png(png_header(0, 9), png_chunk(b"IDAT", b"")),
    "a png that begins with text": png(png_chunk(b"tEXt", b"a"), png_header(1, 1), png_chunk(b"IDAT", b"")),
    "a jpg without a frame": b"\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9",
    "a jpg of nothing": b"\xff\xd8\xff\xd9",
    "a jpg of no height": jpeg_of(61, 0),
    "a jpg with an empty segment": b"\xff\xd8\xff\xe0\x00\x00\xff\xd9",
    "a jpg inside a jpg": b"\xff\xd8\xff\xd8\xff\xd9\xff\xd9",
    "a jpg with two frames": painted("JPEG").replace(
        b"\xff\xda", b"\xff\xc0\x00\x0b\x08\x00\x01\x00\x01\x01\x01\x11\x00\xff\xda"
    ),
    "a gif without a frame": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    "a gif with a broken block": b"GIF89a\x01\x00\x01\x00\x00\x00\x00\x99",
    "an empty webp": b"RIFF\x04\x00\x00\x00WEBP",
    "a webp with an overlong chunk": b"RIFF\x10\x00\x00\x00WEBPVP8 \xff\xff\x00\x00abcd",
    "a webp of an inter frame": painted("WEBP").replace(b"\x9d\x01\x2a", b"\x9d\x01\x2b"),
    "a webp of a broken lossless frame": b"RIFF\x12\x00\x00\x00WEBPVP8L\x06\x00\x00\x00\x00abcde",
    "a webp of a canvas only": b"RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00" + bytes(10),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_refused(name: str) -> None:
    with pytest.raises(NotAnImage):
        image_file.inspect(BROKEN[name], max_bytes=MAX_BYTES)


def test_fill_bytes_and_garbage_between_the_markers_of_a_jpeg_are_skipped_as_decoders_do() -> None:
    content = painted("JPEG")
    filled = content[:2] + b"\xff\xff" + content[2:-2] + b"\xff\xff\xff" + content[-2:]

    assert image_file.inspect(filled, max_bytes=MAX_BYTES).width == 61


def facts_or_refusal(content: bytes) -> Facts | None:
    """Facts that are true to the bytes, or a refusal that tells nothing of them."""
    try:
        facts = image_file.inspect(content, max_bytes=MAX_BYTES)
    except RejectedImage as refused:
        assert len(str(refused)) < 200  # noqa: PT017 - either outcome is right
        return None
    assert (facts.size, facts.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert 0 < facts.width * facts.height <= image_file.MAX_PIXELS
    return facts


SAMPLES = {name: written(name) for name in WRITERS}
_SIGNATURES = st.sampled_from(
    [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\x00\x00\x00WEBP", b"GIF89a", b"<svg", b""]
)


@given(name=st.sampled_from(sorted(SAMPLES)), at=st.integers(0, 5000), noise=st.binary(min_size=1, max_size=8))
def test_whatever_the_bytes_the_answer_is_facts_or_a_refusal(name: str, at: int, noise: bytes) -> None:
    content = SAMPLES[name]
    at %= len(content)
    facts_or_refusal(content[:at] + noise + content[at + len(noise) :])


@given(_SIGNATURES, st.binary(max_size=600))
def test_whatever_follows_a_signature_the_answer_is_facts_or_a_refusal(signature: bytes, rest: bytes) -> None:
    facts = facts_or_refusal(signature + rest)
    assert facts is None or signature


@given(st.sampled_from(sorted(SAMPLES)), st.sampled_from(sorted(SAMPLES)), st.integers(0, 5000), st.integers(0, 5000))
def test_two_pictures_grown_together_are_facts_or_a_refusal(one: str, other: str, end: int, start: int) -> None:
    first, second = SAMPLES[one], SAMPLES[other]
    facts_or_refusal(first[: end % len(first)] + second[start % len(second) :])


@given(
    st.sampled_from(sorted(SAMPLES)),
    st.binary(min_size=1, max_size=300).filter(lambda rest: rest.strip(b"\x00 \t\r\n\x0b\x0c")),
)
def test_nothing_that_says_something_may_follow_a_picture(name: str, rest: bytes) -> None:
    if not rest.startswith(b"\xff\xd8"):
        assert facts_or_refusal(SAMPLES[name] + rest) is None


def test_a_megabyte_costs_little_more_than_its_hash() -> None:
    content = painted("JPEG", (1400, 1000), quality=90)
    assert len(content) > 900_000

    def cpu_seconds(act: Callable[[], object]) -> float:
        started = time.process_time()
        act()
        return time.process_time() - started

    whole = min(cpu_seconds(lambda: image_file.inspect(content, max_bytes=1 << 22)) for _ in range(9))
    hashed = min(cpu_seconds(lambda: hashlib.sha256(content).hexdigest()) for _ in range(9))

    assert whole - hashed < 0.003  # 0.3 ms on the machine where it was written


def test_reading_pictures_loads_no_decoder() -> None:
    program = "import jobs.image_file, sys; sys.exit('PIL' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 0


def test_pillow_here_writes_all_that_these_tests_need() -> None:
    assert features.check("webp")
    assert features.check("jpg")
