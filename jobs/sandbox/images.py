"""Images that show their request: its inputs are mixed in, its prompt is written on them.

Bytes are a pure function of the recipe, the task and the index, so a restarted sandbox serves the same digest. The
drawing is cached; what makes two tasks differ is a comment spliced into the finished file, which costs nothing.
"""

import binascii
import hashlib
import io
import struct
import textwrap
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

#: Longest side of what is kept of an input image. Pixels.
THUMBNAIL = 96
#: Images narrower than this get a bitmap font, which costs next to nothing. Pixels.
SMALL = 200
#: How many inputs are remembered by digest, so that a benchmark's thousand equal inputs are decoded once.
SEEN = 1024
Format = Literal["JPEG", "PNG"]


class UnreadableInput(Exception):
    """The bytes given as an image cannot be decoded as one."""


@dataclass(frozen=True)
class Input:
    """What is kept of an input image: its host if it was a URL, otherwise a thumbnail (JPEG bytes)."""

    host: str = ""
    thumbnail: bytes = b""
    #: Width divided by height of the original; 1 where only a URL is known.
    ratio: float = 1.0
    #: Pillow's name of the original's format; empty for a URL.
    format: str = ""


@dataclass(frozen=True)
class Recipe:
    """All that an image is drawn from, apart from its task and its index."""

    title: str
    prompt: str
    inputs: tuple[Input, ...]
    width: int
    height: int
    format: Format


def read_input(data: bytes) -> Input:
    """Decode an input image wholly and keep a thumbnail of it; raises `UnreadableInput`."""
    digest = hashlib.sha256(data).digest()
    if digest not in _seen:
        if len(_seen) >= SEEN:
            _seen.clear()
        try:
            with Image.open(io.BytesIO(data)) as image:
                ratio, name = image.width / image.height, image.format or ""
                image.draft("RGB", (THUMBNAIL, THUMBNAIL))
                small = image.convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnreadableInput("these bytes are not an image that can be decoded") from error
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        _seen[digest] = Input(thumbnail=_encoded(small, "JPEG"), ratio=ratio, format=name)
    return _seen[digest]


_seen: dict[bytes, Input] = {}


def size_for(ratio: float, longest: int) -> tuple[int, int]:
    """Width and height in pixels for a width-to-height ratio, the longer side being `longest`."""
    if ratio >= 1:
        return longest, max(1, round(longest / ratio))
    return max(1, round(longest * ratio)), longest


def render(recipe: Recipe, task_id: str, index: int) -> bytes:
    """The finished file for one image of one task; the same arguments always give the same bytes."""
    data, comment = _drawn(recipe, index), f"darkroom sandbox {task_id} {index}".encode()
    if data.startswith(b"\xff\xd8"):
        return data[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + data[2:]
    after_header = 33  # the signature (8) and the IHDR chunk (25)
    return data[:after_header] + _png_chunk(b"tEXt", b"Comment\0" + comment) + data[after_header:]


@lru_cache(maxsize=256)
def _drawn(recipe: Recipe, index: int) -> bytes:
    seed = hashlib.sha256(f"{recipe.title}\n{recipe.prompt}\n{index}".encode()).digest()
    gradient = Image.linear_gradient("L").resize((recipe.width, recipe.height))
    canvas = ImageOps.colorize(gradient, _color(seed[:3]), _color(seed[3:6]))
    thumbnails = [Image.open(io.BytesIO(one.thumbnail)) for one in recipe.inputs if one.thumbnail]
    for thumbnail in thumbnails[:2]:
        canvas = Image.blend(canvas, thumbnail.resize(canvas.size), 0.5)
    side = canvas.width // 6
    for place, thumbnail in enumerate(thumbnails):
        corner = side // 4 + place * side * 5 // 4, canvas.height - side * 5 // 4
        canvas.paste(ImageOps.fit(thumbnail, (side, side)), corner)
    _write_text(canvas, recipe, index)
    return _encoded(canvas, recipe.format)


def _color(data: bytes) -> tuple[int, int, int]:
    return data[0], data[1], data[2]


def _write_text(canvas: Image.Image, recipe: Recipe, index: int) -> None:
    hosts = [f"from {one.host}" for one in recipe.inputs if one.host]
    prompt = textwrap.wrap(recipe.prompt, width=36, max_lines=8, placeholder=" ...")
    text = "\n".join([f"{recipe.title}  #{index}", *prompt, *hosts])
    draw, size = ImageDraw.Draw(canvas), canvas.width // 22
    if canvas.width < SMALL:
        draw.multiline_text((2, 2), text.encode("latin-1", "replace").decode("latin-1"), font=_bitmap_font())
        return
    # A shadow costs half of what Pillow's stroke costs.
    for offset, fill in ((size + 1, "black"), (size, "white")):
        draw.multiline_text((offset, offset), text, fill=fill, font=_font(size))


_font = lru_cache(maxsize=8)(ImageFont.load_default)
_bitmap_font = cache(ImageFont.load_default_imagefont)


def _encoded(image: Image.Image, format_: Format) -> bytes:
    buffer = io.BytesIO()
    options: Mapping[str, int] = {"quality": 80} if format_ == "JPEG" else {"compress_level": 1}
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", binascii.crc32(kind + body))


def as_png(data: bytes) -> bytes:
    """The same image as a PNG."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def bomb() -> bytes:
    """A valid PNG of some 50 kB that claims 20,000 by 20,000 pixels."""
    side = 20_000
    row = b"\0" * (1 + side // 8)
    squeeze = zlib.compressobj(1)
    packed = b"".join(squeeze.compress(row * 100) for _ in range(side // 100)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = (_png_chunk(b"IHDR", header), _png_chunk(b"IDAT", packed), _png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
