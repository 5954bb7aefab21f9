"""What a picture is, read from its bytes: type, dimensions and whether it is whole. Pure; nothing is decoded.

Each kind has one walker that follows the file's own structure (JPEG segments, PNG chunks, RIFF chunks, GIF blocks) to
where the picture ends. So a decompression bomb is refused by the dimensions in its header, a download that was cut
short by the end that is not there, and a file that is also something else (a ZIP, a PDF, a web page) by what follows.

What may follow the end: padding (zero bytes and white space) and, behind a JPEG, further whole JPEGs, as cameras write
them (multi-picture format). Anything else is refused. What hides *inside* a picture, in a comment or an EXIF block, is
not looked for: serve pictures under the content type found here, with `X-Content-Type-Options: nosniff`.

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

#: Pixels that a result may have at most (width times height): 100 megapixels, 400 MB when decoded.
MAX_PIXELS = 100_000_000
#: Segments, chunks or sub-blocks that are walked at most: half a second of work.
MAX_PARTS = 500_000
#: Blocks of a GIF, each of which may be a chain of sub-blocks.
MAX_GIF_BLOCKS = 20_000


class RejectedImage(DarkroomError):
    """The bytes are not a picture that we keep. The message holds numbers, never bytes of the picture.

    `refetchable` tells whether fetching the picture again may help.
    """

    refetchable = False


class NotAnImage(RejectedImage):
    """Neither JPEG, PNG, WebP nor GIF, or one whose structure is broken; often an error page that came with a 200."""

    refetchable = True


class ImageCutShort(RejectedImage):
    """A picture without its end: the connection broke."""

    refetchable = True


class ImageTooLarge(RejectedImage):
    """More bytes or more pixels than allowed."""


class DataAppended(RejectedImage):
    """Something else follows the end of the picture."""


@dataclass(frozen=True)
class Facts:
    """What we know of a whole picture."""

    #: IANA media type, by the bytes
    content_type: str
    #: without a dot: jpg, png, webp or gif
    extension: str
    #: pixels
    width: int
    #: pixels
    height: int
    #: bytes
    size: int
    #: of the content, 64 hex digits
    sha256: str


@dataclass(frozen=True)
class Kind:
    """One kind of picture that we keep."""

    content_type: str
    extension: str


JPEG = Kind("image/jpeg", "jpg")
PNG = Kind("image/png", "png")
WEBP = Kind("image/webp", "webp")
GIF = Kind("image/gif", "gif")


def inspect(content: bytes, *, max_bytes: int, max_pixels: int = MAX_PIXELS) -> Facts:
    """Return the facts of a whole picture with nothing else behind it: what a provider sent.

    `max_bytes` bounds the file, `max_pixels` width times height (of a GIF or a WebP: of its largest frame).
    Raises a `RejectedImage`: `NotAnImage`, `ImageCutShort`, `ImageTooLarge` or `DataAppended`.
    """
    kind, outline = _outlined(content, max_bytes, max_pixels)
    _check_rest(content, kind, outline.end, max_pixels)
    return _facts(content, kind, outline)


def measure(content: bytes, *, max_bytes: int, max_pixels: int = MAX_PIXELS) -> Facts:
    """Return the facts of a whole picture, whatever follows it: what a person's phone wrote, with its maker's appendix.

    Takes and raises what `inspect` does, but for `DataAppended`.
    """
    return _facts(content, *_outlined(content, max_bytes, max_pixels))


def _outlined(content: bytes, max_bytes: int, max_pixels: int) -> tuple[Kind, _Outline]:
    if len(content) > max_bytes:
        raise ImageTooLarge(f"the picture has {len(content)} bytes; {max_bytes} are allowed")
    kind = recognize(content)
    if kind is None:
        raise NotAnImage(f"neither JPEG, PNG, WebP nor GIF but {_stranger(content)}, {len(content)} bytes")
    outline = _walk(content, kind)
    _check_pixels(outline, max_pixels)
    return kind, outline


def _facts(content: bytes, kind: Kind, outline: _Outline) -> Facts:
    sha256 = hashlib.sha256(content).hexdigest()
    return Facts(kind.content_type, kind.extension, outline.width, outline.height, len(content), sha256)


def recognize(content: bytes) -> Kind | None:
    """Return the kind that the first bytes announce, or None; it says nothing about the rest."""
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
    """Dimensions in pixels, and the offset behind the last byte of the picture."""

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
        raise ImageTooLarge(f"the picture has {width} x {height} pixels; {max_pixels} are allowed")


def _check_rest(content: bytes, kind: Kind, end: int, max_pixels: int) -> None:
    """Accept what may follow a picture, see the module's docstring."""
    while (start := _end_of_padding(content, end)) < len(content):
        if kind is not JPEG or not _JPEG_SIGNATURE.startswith(content[start : start + len(_JPEG_SIGNATURE)]):
            raise DataAppended(f"{len(content) - end} bytes follow the end of the {kind.extension} at byte {end}")
        outline = _walk(content, JPEG, start)
        _check_pixels(outline, max_pixels)
        end = outline.end


def _end_of_padding(content: bytes, end: int) -> int:
    found = _NO_PADDING.search(content, end)
    return found.start() if found else len(content)


def _in_pieces(kind: Kind) -> NotAnImage:
    return NotAnImage(f"the {kind.extension} is in more pieces than any writer makes: an attack on whoever reads it")


def _stranger(content: bytes) -> str:
    head = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((name for magic, name in _STRANGERS if head.startswith(magic)), "something else")


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


def _walk_jpeg(content: bytes, start: int) -> _Outline:
    """Go from marker to marker to the end of the image; coded data holds none but restarts, so it is skipped alike."""
    size: tuple[int, int] | None = None
    scanned = False
    position = start + 2
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(content, position)
        if found is None:
            break
        marker, position = content[found.end() - 1], found.end()
        if marker == _JPEG_END:
            return _jpeg_outline(size, scanned, position)
        if marker == _JPEG_TEM:
            continue
        length = _big(content, position, 2)
        if marker in _JPEG_FRAMES:
            size = _jpeg_frame(content, position, size)
        scanned = scanned or marker == _JPEG_SCAN
        position += _jpeg_length(length, marker)
    else:
        raise _in_pieces(JPEG)
    raise IndexError(position)


def _jpeg_length(length: int, marker: int) -> int:
    if length < 2 or marker == _JPEG_START:
        raise NotAnImage(f"the jpg has a broken segment, marker {marker:#x}")
    return length


def _jpeg_frame(content: bytes, position: int, earlier: tuple[int, int] | None) -> tuple[int, int]:
    if earlier is not None:
        raise NotAnImage("the jpg has two frame headers")
    return _big(content, position + 5, 2), _big(content, position + 3, 2)


def _jpeg_outline(size: tuple[int, int] | None, scanned: bool, end: int) -> _Outline:
    if size is None or not scanned:
        raise NotAnImage("the jpg holds no picture")
    return _Outline(*size, end)


_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_START, _JPEG_END, _JPEG_SCAN, _JPEG_TEM = 0xD8, 0xD9, 0xDA, 0x01
#: SOF0 to SOF15, without DHT, JPG and DAC that stand between them
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Any marker but a stuffed zero, a restart and fill bytes. Its one literal first byte lets `re` scan 3 GB/s.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


# PNG


def _walk_png(content: bytes, _start: int) -> _Outline:
    """Go from chunk to chunk to IEND, checking each one's CRC."""
    if _slice(content, 8, 8) != _PNG_HEADER:
        raise NotAnImage("the png does not begin with its header")
    width, height = _big(content, 16, 4), _big(content, 20, 4)
    position, name, painted = 8, b"", False
    for _ in range(MAX_PARTS):
        name, position = _png_chunk(content, position)
        painted = painted or name == b"IDAT"
        if name == b"IEND":
            break
    else:
        raise _in_pieces(PNG)
    if not painted:
        raise NotAnImage("the png holds no picture")
    return _Outline(width, height, position)


def _png_chunk(content: bytes, position: int) -> tuple[bytes, int]:
    """Return a chunk's name and where the next one begins."""
    end = position + 8 + _big(content, position, 4)
    expected = _big(content, end, 4)
    if zlib.crc32(memoryview(content)[position + 4 : end]) != expected:
        raise NotAnImage(f"the png is damaged in the chunk at byte {position}")
    return content[position + 4 : position + 8], end + 4


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: the length and the name of the first chunk
_PNG_HEADER = b"\x00\x00\x00\rIHDR"


# WebP


def _walk_webp(content: bytes, _start: int) -> _Outline:
    """Go through the chunks of the RIFF container; the canvas is as large as its largest frame, or as VP8X says."""
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
        if measure := _WEBP_MEASURES.get(name):
            sizes[name] = _largest(measure(content, position + 8), sizes.get(name, (0, 0)))
        position += 8 + (_WEBP_FRAME_HEADER if name == b"ANMF" else size + size % 2)
    else:
        raise _in_pieces(WEBP)
    if not sizes.keys() & {b"VP8 ", b"VP8L"}:
        raise NotAnImage("the webp holds no picture")
    return _Outline(*_largest(*sizes.values()), end)


def _largest(*sizes: tuple[int, int]) -> tuple[int, int]:
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _webp_canvas(content: bytes, at: int) -> tuple[int, int]:
    return 1 + _little(content, at + 4, 3), 1 + _little(content, at + 7, 3)


def _webp_frame(content: bytes, at: int) -> tuple[int, int]:
    """Return how far a frame of an animation reaches; its place counts in units of two pixels."""
    left, top = (2 * _little(content, at + offset, 3) for offset in (0, 3))
    return left + 1 + _little(content, at + 6, 3), top + 1 + _little(content, at + 9, 3)


def _webp_lossy(content: bytes, at: int) -> tuple[int, int]:
    if content[at + 3 : at + 6] != b"\x9d\x01\x2a":
        raise NotAnImage("the webp holds no key frame")
    return _little(content, at + 6, 2) & 0x3FFF, _little(content, at + 8, 2) & 0x3FFF


def _webp_lossless(content: bytes, at: int) -> tuple[int, int]:
    if content[at] != 0x2F:
        raise NotAnImage("the webp has a broken lossless header")
    bits = _little(content, at + 1, 4)
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


#: bytes before the chunks that a frame of an animation holds
_WEBP_FRAME_HEADER = 16

_WEBP_MEASURES: dict[bytes, Callable[[bytes, int], tuple[int, int]]] = {
    b"VP8X": _webp_canvas,
    b"ANMF": _webp_frame,
    b"VP8 ": _webp_lossy,
    b"VP8L": _webp_lossless,
}


# GIF


def _walk_gif(content: bytes, _start: int) -> _Outline:
    """Go from block to block to the trailer; the canvas is as large as its largest frame, or as the screen."""
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
        raise _in_pieces(GIF)
    if not painted:
        raise NotAnImage("the gif holds no picture")
    return _Outline(width, height, position + 1)


def _gif_palette(flags: int) -> int:
    """Return the bytes of the color table that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_end(content: bytes, position: int) -> int:
    """Return where a chain of sub-blocks ends; each begins with its length, the last one is empty."""
    for _ in range(MAX_PARTS):
        length = content[position]
        position += 1 + length
        if not length:
            return position
    raise _in_pieces(GIF)


_GIF_TRAILER, _GIF_IMAGE, _GIF_EXTENSION = 0x3B, 0x2C, 0x21


_WALKERS: dict[Kind, Callable[[bytes, int], _Outline]] = {
    JPEG: _walk_jpeg,
    PNG: _walk_png,
    WEBP: _walk_webp,
    GIF: _walk_gif,
}

#: Some writers pad behind a picture with zero bytes or white space.
_NO_PADDING = re.compile(rb"[^\x00\t\n\r ]")

#: What else providers and users have been seen to send, for the error message.
_STRANGERS = (
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
