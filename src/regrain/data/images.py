"""Decode images and choose the form in which they are stored."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from regrain.errors import UserError
from regrain.processes import local_processes

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

DEEP_WHITE = 65535
"""White among pixels of 16 bits, unless the data say otherwise."""

SMALL_SIDE = 128
"""Images up to this side, in pixels, are decoded once and kept in memory."""

LARGE_SIDE = 256
"""Larger images are stored at this side unless the user says otherwise."""

_MEMORY_LIMIT = 8 << 30
_CHUNK = 256
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_HEADERS = 256
_DEPTHS = (8, 10, 12, 14, 16)
_THREADED_PIXELS = 128 * 128


class ImageForm(NamedTuple):
    """How images are stored: each alike, whatever it is read with.

    shape : (channels, height, width)
        1 channel is grey, 3 are RGB, 4 RGBA. The shorter side is resized (bilinear), the centre cut out.
    white : int
        The value of pixels of more than 8 bits that is stored as 255.
    """

    shape: tuple[int, int, int]
    white: int = DEEP_WHITE

    def fits_memory(self, count: int) -> bool:
        """Whether this number of images is decoded once, and kept in memory."""
        channels, height, width = self.shape
        return max(height, width) <= SMALL_SIDE and count * channels * height * width <= _MEMORY_LIMIT


class Storage(NamedTuple):
    """The chosen form of stored images.

    ``lossless`` says whether the form loses nothing, ``deep`` whether ``white`` was chosen: by an option, or for images
    of more than 8 bits.
    """

    form: ImageForm
    in_memory: bool
    lossless: bool
    threads: int
    messages: tuple[str, ...]
    deep: bool


def decode_image(
    source: str | Path | bytes, channels: int, size: int | tuple[int, int] | None = None, white: int = DEEP_WHITE
) -> np.ndarray:
    """One image as uint8 (channels, H, W); with ``size`` its shorter side is resized to it and the centre cut out.

    Raises an OSError if the file is missing or is not an image; the caller knows the row and says so.

    Parameters
    ----------
    source : path or encoded bytes
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    size : int or (height, width), optional
        Pixels of the result; one number means a square.
    white : int
        The value of pixels of more than 8 bits that becomes 255; what is above is cut off.
    """
    from PIL import Image, ImageOps

    mode = MODES[channels]
    target = (size, size) if isinstance(size, int) else size
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            if target is not None:
                # JPEG decodes at a reduced scale, no less than twice the size, so that hardly a pixel differs
                opened.draft(mode, (2 * max(target), 2 * max(target)))
            image: Image.Image = _eight_bit(ImageOps.exif_transpose(opened), white).convert(mode)
    except OSError:
        raise
    except Exception as error:  # on damaged data decoders raise nearly anything: SyntaxError, EOFError, struct.error
        raise OSError(str(error) or type(error).__name__) from error
    return _as_array(image, target)


def _as_array(image: PILImage, size: tuple[int, int] | None) -> np.ndarray:
    """An image as (C, H, W), at the size asked for."""
    from PIL import Image, ImageOps

    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _eight_bit(image: PILImage, white: int) -> PILImage:
    """Grey images of more than 8 bits scaled to 8; Pillow's own conversion cuts them off at 255."""
    from PIL import Image

    if image.mode == "F":
        raise OSError("floating-point pixels have no known range; save the image with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image.convert(f"{image.mode[:-1]}A") if image.mode in ("La", "RGBa") else image
    return Image.fromarray(eight_bit(np.asarray(image), white))


def eight_bit(pixels: np.ndarray, white: int) -> np.ndarray:
    """Whole numbers scaled so that ``white`` becomes 255, as uint8.

    Examples
    --------
    >>> eight_bit(np.array([0, 1000, 4095, 9999]), white=4095).tolist()
    [0, 62, 255, 255]
    """
    return (pixels.clip(0, white) * (255 / white)).round().astype(np.uint8)


def as_picture(pixels: np.ndarray) -> PILImage:
    """uint8 pixels (C, H, W) as Pillow's image."""
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def as_png(pixels: np.ndarray) -> bytes:
    """uint8 pixels (C, H, W) as the bytes of a PNG file, which loses nothing."""
    stream = io.BytesIO()
    as_picture(pixels).save(stream, format="PNG")
    return stream.getvalue()


def fitted_images(images: np.ndarray, channels: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 images (N, C, H, W) with other channels and at another size, exactly as :func:`decode_image` makes them."""
    if images.shape[1:] == (channels, *size):
        return images
    result = np.empty((len(images), channels, *size), dtype=np.uint8)
    for row, pixels in enumerate(images):
        result[row] = _as_array(as_picture(pixels).convert(MODES[channels]), size)
    return result


def decode_images(
    sources: Sequence[str | bytes] | np.ndarray, form: ImageForm, *, threads: int = 1
) -> tuple[np.ndarray, dict[int, str]]:
    """Many images in one form, and which of them could not be decoded.

    Parameters
    ----------
    sources : sequence of path or bytes, N of them
    threads : int
        More than one pays for photographs only: on tiny images threads wait for each other.

    Returns
    -------
    images : uint8 array (N, channels, height, width)
        Zeros where decoding failed.
    failures : dict of position to reason
    """
    (channels, *size), white = form
    images = np.zeros((len(sources), *form.shape), dtype=np.uint8)
    failures: dict[int, str] = {}

    def decode(start: int) -> None:
        for row in range(start, min(start + _CHUNK, len(sources))):
            try:
                images[row] = decode_image(sources[row], channels, (size[0], size[1]), white)
            except OSError as error:
                failures[row] = _reason(error)

    starts = range(0, len(sources), _CHUNK)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, starts))
    else:
        for start in starts:
            decode(start)
    return images, dict(sorted(failures.items()))


def _reason(error: OSError) -> str:
    """The decoder's words, without the address of the buffer, or the system's without the path."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if error.errno is not None:
        return f"cannot be opened ({error.strerror or error})"
    unknown = "cannot identify image file"
    return "is not an image in a known format" if str(error).startswith(unknown) else f"cannot be decoded ({error})"


# How images are stored


class _Header(NamedTuple):
    """The header of an image; size is (height, width), as the picture stands upright."""

    mode: str
    size: tuple[int, int]
    brightest: int | None
    transparent: bool
    frames: bool

    @property
    def grey(self) -> bool:
        return self.mode in ("1", "L", "LA", "La") or self.mode.startswith("I")


def choose_storage(
    images: Sequence[Any] | np.ndarray,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    white: int | None = None,
) -> Storage:
    """How to keep images, judged by the headers of a sample of them; what an option says wins.

    Parameters
    ----------
    images : sequence of path or bytes, or array (N, C, H, W)
    image_size, channels, white
        See :class:`~regrain.data.options.StorageOptions`.
    """
    _require_options(image_size, channels, white)
    asked = (image_size, image_size) if isinstance(image_size, int) else image_size
    if isinstance(images, np.ndarray):
        return _array_storage(images, asked, channels, white)
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), _HEADERS)).astype(int)).tolist()
    headers = [header for row in rows if (header := _header(images[row])) is not None]
    sizes = [header.size for header in headers] or [(LARGE_SIDE, LARGE_SIDE)]
    if channels is None:
        channels = 1 if headers and all(header.grey for header in headers) else 3
    side = min(LARGE_SIDE, int(np.median([min(size) for size in sizes])))
    same = len(set(sizes)) == 1 and max(sizes[0]) <= SMALL_SIDE
    height, width = asked or (sizes[0] if same else (side, side))
    messages = []
    if asked is None and not same and set(sizes) != {(side, side)}:
        low, high = min(sizes), max(sizes)
        seen = _pixels(low) if low == high else f"{_pixels(low)} to {_pixels(high)}"
        messages.append(
            f"images of {seen} pixels (in {len(sizes)} looked at) are stored at {side} x {side}: shorter side "
            "resized, centre cut out; --image-size (image_size) sets another size"
        )
    brightest = [header.brightest for header in headers if header.brightest is not None]
    form = ImageForm((channels, height, width), white or _white(max(brightest, default=DEEP_WHITE)))
    messages += _losses(headers, channels, form.white, max(brightest, default=None))
    processes = local_processes()
    in_memory = form.fits_memory(len(images) * processes)  # each of which would hold them
    if max(height, width) <= SMALL_SIDE and not in_memory:
        memory = len(images) * processes * channels * height * width / 2**30
        messages.append(
            f"the decoded images would take {memory:.0f} GiB: they are decoded when they are needed; "
            "--cache (cache=True) keeps them in a memory-mapped file"
        )
    large = np.median([h * w for h, w in sizes]) > _THREADED_PIXELS
    plain = all(header.mode == MODES[channels] and header.size == (height, width) for header in headers)
    threads = max(1, min(8, (os.cpu_count() or 1) // processes)) if large else 1
    return Storage(form, in_memory, plain, threads, tuple(messages), white is not None or bool(brightest))


def _require_options(image_size: int | tuple[int, int] | None, channels: int | None, white: int | None) -> None:
    sides = image_size if isinstance(image_size, list | tuple) and len(image_size) == 2 else (image_size,)
    if image_size is not None and not all(isinstance(side, int) and 1 <= side <= 4096 for side in sides):
        raise UserError(f"image_size is a number of pixels from 1 to 4096; got {image_size!r}", code="out_of_range")
    if channels not in (None, 1, 3, 4):
        raise UserError(f"channels is 1 (grey), 3 (RGB) or 4 (RGBA); got {channels!r}", code="out_of_range")
    if white is not None and (not isinstance(white, int) or isinstance(white, bool) or not 1 <= white < 2**32):
        raise UserError(
            f"white is the value of 16-bit pixels that is stored as 255, such as 4095; got {white!r}",
            code="out_of_range",
        )


def _header(source: str | bytes) -> _Header | None:
    """Read an image's header, and the brightest pixel of more than 8 bits; return None if it is not readable."""
    from PIL import ExifTags, Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            sideways = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            mode, several = image.mode, bool(getattr(image, "is_animated", False))
            transparent = mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
            brightest = max(0, int(np.asarray(image).max())) if mode.startswith("I") else None
            return _Header(mode, (width, height) if sideways else (height, width), brightest, transparent, several)
    except Exception:  # whatever is wrong with it comes out, by name, when it is decoded
        return None


def _white(brightest: int) -> int:
    """The largest number of the usual bits that hold the brightest pixel.

    Examples
    --------
    >>> [_white(brightest) for brightest in (0, 255, 256, 3000, 4095, 40000, 70000)]
    [255, 255, 1023, 4095, 4095, 65535, 131071]
    """
    bits = max(brightest, 1).bit_length()
    return 2 ** next((usual for usual in _DEPTHS if bits <= usual), bits) - 1


def _losses(headers: Sequence[_Header], channels: int, white: int, brightest: int | None) -> Iterator[str]:
    """Return notes on what is scaled or dropped when images are stored at 8 bits, in this number of channels."""
    total = len(headers)
    deep = sum(header.brightest is not None for header in headers)
    if deep:
        yield (
            f"{deep} of {total} images looked at have more than 8 bits a pixel (brightest {brightest}): "
            f"{white} is stored as 255; --white (white) sets another value"
        )
    clear = sum(header.transparent for header in headers)
    if clear and channels != 4:
        yield (
            f"{clear} of {total} images looked at have transparent pixels, which are stored as opaque; "
            "--channels 4 (channels=4) keeps them"
        )
    coloured = sum(not header.grey for header in headers)
    if coloured and channels == 1:
        yield f"{coloured} of {total} images looked at are not grey and are stored as grey"
    several = sum(header.frames for header in headers)
    if several:
        yield f"{several} of {total} images looked at have several frames, of which the first is stored"


def _array_storage(
    images: np.ndarray, size: tuple[int, int] | None, channels: int | None, white: int | None
) -> Storage:
    """Images that are in memory are kept as they are, unless an option says otherwise."""
    deep = images.dtype != np.uint8
    brightest = int(images.max()) if deep and images.size else None
    shape = (channels or images.shape[1], *(size or images.shape[2:]))
    form = ImageForm(shape, white or _white(brightest or DEEP_WHITE))
    bits = (
        f"the images have 16 bits a pixel (brightest {brightest}): {form.white} is stored as 255; white= sets another"
    )
    return Storage(form, True, True, 1, (f"{bits} value",) if deep else (), deep)


def _pixels(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width} x {height}"
