"""Reads what an image file is from its bytes: its type, its dimensions, and whether it is complete. Nothing is decoded.

A walker for each format follows the structure of the file (JPEG segments, PNG chunks, RIFF chunks, GIF blocks) to the end of
the image. That refuses a decompression bomb by the dimensions in its header, a download that was cut short by its missing
end, and a file that is something else as well (a ZIP, a PDF, a web page) by the bytes after the end.

After the end, padding (zero bytes and white space) is accepted and, in a JPEG, further complete JPEGs, as cameras write them
(multi-picture format). Anything else is refused. Comments and EXIF blocks inside an image are not searched: serve images
under the content type found here, with `X-Content-Type-Options: nosniff`.

Sources: ITU-T T.81 annex B, W3C PNG (third edition), RFC 9649 (WebP), GIF89a.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .errors import DarkroomError

#: the most pixels (width times height) of an image: 100 megapixels are 400 MB when decoded
MAX_PIXELS = 100_000_000
#: the most segments, chunks or sub-blocks that are followed: half a second of work
MAX_PARTS = 500_000
#: the most blocks of a GIF, each of which may be a chain of sub-blocks
MAX_GIF_BLOCKS = 20_000


class RejectedImage(DarkroomError):
    """The bytes are not an image that we store. The message holds numbers, never bytes of the file."""

    #: whether downloading the image again may help
    refetchable = False


class NotAnImage(RejectedImage):
    """Neither JPEG, PNG, WebP nor GIF, or the structure is broken; often an error page that came with a 200."""

    refetchable = True


class ImageCutShort(RejectedImage):
    """The end of the image is missing: the connection broke."""

    refetchable = True


class ImageTooLarge(RejectedImage):
    """More bytes or more pixels than allowed."""


class DataAppended(RejectedImage):
    """Other data follows the end of the image."""


@dataclass(frozen=True)
class Facts:
    """What is known of a complete image."""

    #: IANA media type, from the bytes
    content_type: str
    #: without a dot: jpg, png, webp or gif
    extension: str
    #: in pixels
    width: int
    #: in pixels
    height: int
    #: in bytes
    size: int
    #: of the content, 64 hex digits
    sha256: str


@dataclass(frozen=True)
class Kind:
    """One image format that we store."""

    content_type: str
    extension: str


JPEG = Kind("image/jpeg", "jpg")
PNG = Kind("image/png", "png")
WEBP = Kind("image/webp", "webp")
GIF = Kind("image/gif", "gif")


def inspect(content: bytes, *, max_bytes: int, max_pixels: int = MAX_PIXELS) -> Facts:
    """Return the facts of a complete image with no other data after it, for what a provider sent.

    `max_bytes` bounds the file, `max_pixels` width times height (of a GIF or a WebP: of its largest frame).
    Raises a `RejectedImage`: `NotAnImage`, `ImageCutShort`, `ImageTooLarge` or `DataAppended`.
    """
    kind, outline = _read_outline(content, max_bytes, max_pixels)
    end = outline.end
    while found := _NO_PADDING.search(content, end):
        start = found.start()
        if kind is not JPEG or not _JPEG_SIGNATURE.startswith(content[start : start + len(_JPEG_SIGNATURE)]):
            raise DataAppended(f"{len(content) - end} bytes follow the end of the {kind.extension} at byte {end}")
        further = _walk(content, JPEG, start)
        _check_pixels(further, max_pixels)
        end = further.end
    return _facts(content, kind, outline)


def measure(content: bytes, *, max_bytes: int, max_pixels: int = MAX_PIXELS) -> Facts:
    """Return the facts of a complete image with any data after it, for input images: some phones append data.

    Arguments and errors are those of `inspect`, without `DataAppended`.
    """
    return _facts(content, *_read_outline(content, max_bytes, max_pixels))


def _read_outline(content: bytes, max_bytes: int, max_pixels: int) -> tuple[Kind, _Outline]:
    if len(content) > max_bytes:
        raise ImageTooLarge(f"the image has {len(content)} bytes; at most {max_bytes} are allowed")
    kind = recognize(content)
    if kind is None:
        head = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
        found = next((name for magic, name in _OTHER_FORMATS if head.startswith(magic)), "an unknown format")
        raise NotAnImage(f"expected JPEG, PNG, WebP or GIF, found {found} of {len(content)} bytes")
    outline = _walk(content, kind)
    _check_pixels(outline, max_pixels)
    return kind, outline


def _facts(content: bytes, kind: Kind, outline: _Outline) -> Facts:
    sha256 = hashlib.sha256(content).hexdigest()
    return Facts(kind.content_type, kind.extension, outline.width, outline.height, len(content), sha256)


def recognize(content: bytes) -> Kind | None:
    """Return the format that the first bytes announce, or None; it says nothing about the rest."""
    if content.startswith(_JPEG_SIGNATURE):
        return JPEG
    if content.startswith(_PNG_SIGNATURE):
        return PNG
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WEBP
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return GIF
    return None


class _Outline(NamedTuple):
    """Dimensions in pixels, and the offset after the last byte of the image."""

    width: int
    height: int
    end: int


def _walk(content: bytes, kind: Kind, start: int = 0) -> _Outline:
    try:
        return _WALKERS[kind](content, start)
    except IndexError:
        raise ImageCutShort(f"the {kind.extension} ends early, after {len(content)} bytes") from None


def _check_pixels(outline: _Outline, max_pixels: int) -> None:
    width, height, _ = outline
    if not width or not height:
        raise NotAnImage(f"the header says {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageTooLarge(f"the image has {width} x {height} pixels; at most {max_pixels} are allowed")


def _too_many_parts(kind: Kind) -> NotAnImage:
    return NotAnImage(f"the {kind.extension} has more parts than any program writes: it is made to keep readers busy")


def _big(content: bytes, at: int, size: int) -> int:
    return int.from_bytes(_slice(content, at, size), "big")


def _little(content: bytes, at: int, size: int) -> int:
    return int.from_bytes(_slice(content, at, size), "little")


def _slice(content: bytes, at: int, size: int) -> bytes:
    """Return exactly `size` bytes; IndexError past the end, where Python would return fewer."""
    if at + size > len(content):
        raise IndexError(at)
    return content[at : at + size]


# JPEG


def walk_jpeg(content: bytes, start: int) -> _Outline:
    """Follow the markers to the end of the image; coded data holds only restart markers, so it is skipped the same way."""
    size: tuple[int, int] | None = None
    scanned = False
    position = start + 2
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(content, position)
        if found is None:
            break
        marker, position = content[found.end() - 1], found.end()
        if marker == _JPEG_END:
            if size is None or not scanned:
                raise NotAnImage("the jpg holds no image data")
            return _Outline(*size, position)
        if marker == _JPEG_TEM:
            continue
        length = _big(content, position, 2)
        if marker in _JPEG_FRAMES:
            if size is not None:
                raise NotAnImage("the jpg has two frame headers")
            size = _big(content, position + 5, 2), _big(content, position + 3, 2)
        if length < 2 or marker == _JPEG_START:
            raise NotAnImage(f"the jpg has a broken segment, marker {marker:#x}")
        scanned = scanned or marker == _JPEG_SCAN
        position += length
    else:
        raise _too_many_parts(JPEG)
    raise IndexError(position)


_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_START, _JPEG_END, _JPEG_SCAN, _JPEG_TEM = 0xD8, 0xD9, 0xDA, 0x01
#: SOF0 to SOF15, without DHT, JPG and DAC, which are numbered among them
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: any marker except a stuffed zero, a restart and fill bytes; its literal first byte lets `re` scan 3 GB/s
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


# PNG


def walk_png(content: bytes, _start: int) -> _Outline:
    """Follow the chunks to IEND and check the CRC of each."""
    if _slice(content, 8, 8) != _PNG_HEADER:
        raise NotAnImage("the png does not begin with its header")
    width, height = _big(content, 16, 4), _big(content, 20, 4)
    position, painted = 8, False
    for _ in range(MAX_PARTS):
        end = position + 8 + _big(content, position, 4)
        expected = _big(content, end, 4)
        if zlib.crc32(memoryview(content)[position + 4 : end]) != expected:
            raise NotAnImage(f"the png is damaged in the chunk at byte {position}")
        name, position = content[position + 4 : position + 8], end + 4
        painted = painted or name == b"IDAT"
        if name == b"IEND":
            break
    else:
        raise _too_many_parts(PNG)
    if not painted:
        raise NotAnImage("the png holds no image data")
    return _Outline(width, height, position)


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: the length and the name of the first chunk
_PNG_HEADER = b"\x00\x00\x00\rIHDR"


# WebP


def walk_webp(content: bytes, _start: int) -> _Outline:
    """Follow the chunks of the RIFF container; the dimensions are those of the largest frame, or of VP8X."""
    end = 8 + _little(content, 4, 4)
    if end > len(content):
        raise IndexError(end)
    sizes: dict[bytes, tuple[int, int]] = {}
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > end:
            break
        name, size = content[position : position + 4], _little(content, position + 4, 4)
        if position + 8 + size > end:
            raise NotAnImage(f"the webp has a chunk at byte {position} that is longer than the file")
        if stated := _webp_size(name, content, position + 8):
            sizes[name] = _largest(stated, sizes.get(name, (0, 0)))
        position += 8 + (_WEBP_FRAME_HEADER if name == b"ANMF" else size + size % 2)
    else:
        raise _too_many_parts(WEBP)
    if not sizes.keys() & {b"VP8 ", b"VP8L"}:
        raise NotAnImage("the webp holds no image data")
    return _Outline(*_largest(*sizes.values()), end)


def _largest(*sizes: tuple[int, int]) -> tuple[int, int]:
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _webp_size(name: bytes, content: bytes, at: int) -> tuple[int, int] | None:
    """Return the dimensions that the chunk with its data at this offset states, or None for other chunks."""
    match name:
        case b"VP8X":
            return 1 + _little(content, at + 4, 3), 1 + _little(content, at + 7, 3)
        case b"ANMF":  # the far corner of a frame of an animation; its position is in units of two pixels
            left, top = (2 * _little(content, at + offset, 3) for offset in (0, 3))
            return left + 1 + _little(content, at + 6, 3), top + 1 + _little(content, at + 9, 3)
        case b"VP8 ":
            if content[at + 3 : at + 6] != b"\x9d\x01\x2a":
                raise NotAnImage("the webp holds no key frame")
            return _little(content, at + 6, 2) & 0x3FFF, _little(content, at + 8, 2) & 0x3FFF
        case b"VP8L":
            if content[at] != 0x2F:
                raise NotAnImage("the webp has a broken lossless header")
            bits = _little(content, at + 1, 4)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


#: the bytes before the chunks inside a frame of an animation
_WEBP_FRAME_HEADER = 16


# GIF


def walk_gif(content: bytes, _start: int) -> _Outline:
    """Follow the blocks to the trailer; the dimensions are those of the largest frame, or of the screen."""
    width, height = _little(content, 6, 2), _little(content, 8, 2)
    position = 13 + _gif_palette(content[10])
    painted = False
    for _ in range(MAX_GIF_BLOCKS):
        block = content[position]
        if block == _GIF_TRAILER:
            break
        if block == _GIF_IMAGE:
            left, top, across, down = (_little(content, position + at, 2) for at in (1, 3, 5, 7))
            width, height, painted = max(width, left + across), max(height, top + down), True
            position = _gif_end(content, position + 11 + _gif_palette(content[position + 9]))
        elif block == _GIF_EXTENSION:
            position = _gif_end(content, position + 2)
        else:
            raise NotAnImage(f"the gif has a broken block at byte {position}")
    else:
        raise _too_many_parts(GIF)
    if not painted:
        raise NotAnImage("the gif holds no image data")
    return _Outline(width, height, position + 1)


def _gif_palette(flags: int) -> int:
    """Return the size of the color table that the flags announce, in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_end(content: bytes, position: int) -> int:
    """Return the end of a chain of sub-blocks; each begins with its length, and the last one is empty."""
    for _ in range(MAX_PARTS):
        length = content[position]
        position += 1 + length
        if not length:
            return position
    raise _too_many_parts(GIF)


_GIF_TRAILER, _GIF_IMAGE, _GIF_EXTENSION = 0x3B, 0x2C, 0x21


_WALKERS: dict[Kind, Callable[[bytes, int], _Outline]] = {
    JPEG: walk_jpeg,
    PNG: walk_png,
    WEBP: walk_webp,
    GIF: walk_gif,
}

#: some programs pad after an image with zero bytes or white space
_NO_PADDING = re.compile(rb"[^\x00\t\n\r ]")

#: what else providers and users send, for the error message
_OTHER_FORMATS = (
    (b"<svg", "SVG"),
    (b"<", "markup (HTML, XML or SVG)"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"BM", "BMP"),
    (b"\x00\x00\x00", "AVIF, HEIC or a video"),
)
