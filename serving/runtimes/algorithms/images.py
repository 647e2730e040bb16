"""Images of requests, made into what a model reads: decoded, turned upright, scaled to the declared size.

Settings of the algorithms of images:

``ImageShape``  ``[channels, height, width]`` as the model reads it, 1 channel (grey) or 3 (red, green, blue). An
                image of another size is stretched to it. Height and width 0: it is read in its own size.
``Multiple``    for those: height and width are filled up to a multiple of this (a net that halves four times: 16)
``MostPixels``  for those: a larger image is scaled down to so many pixels before the model sees it
``Layout``      ``NCHW`` (default) or ``NHWC``
``Mean``        of each channel or of all, of pixels from 0 to 255: the model reads ``(pixel - Mean) * Scale``
``Scale``       likewise; 1/255 unless said. A model of uint8 reads the pixels themselves

As AWS's decoder (OpenCV's) does, the content says what an image is, not the header; what is transparent counts as if it
was not; EXIF's orientation is followed; sixteen bits count by their upper eight. Of several frames the first is read.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.errors import BadInput, LoadFailed, OutOfMemory
from serving.runtimes.declaration import NAME, Declaration

if TYPE_CHECKING:
    from PIL.Image import Image

#: What is read, by content.
FORMATS = ("JPEG", "PNG")
#: More is no photograph but a bomb: 6 MB of PNG unpack to gigabytes.
MOST_PIXELS = 50_000_000
#: A progressive JPEG has about ten scans, and a crafted one thousands in few bytes; each may take as long as the whole
#: picture. So many pixels are gone over in all.
MOST_WORK = 20 * MOST_PIXELS
_MOST_SCANS = 100
#: Sides of what a model reads.
_MOST_SIDE = 4096
#: Of ``Mean`` and ``Scale``: their product must be a float32.
_MOST_SHIFT = 1e9
_JPEG, _SCAN = b"\xff\xd8", b"\xff\xda"
_SIDEWAYS = (5, 6, 7, 8)
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Picture:
    """``pixels``: uint8 ``[height, width, channels]`` in the size that the model reads. ``width`` and ``height``: of
    the image that was sent, upright."""

    pixels: np.ndarray
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Reader:
    """How a model wants its images. ``height`` and ``width`` None: each in its own size."""

    channels: int
    height: int | None
    width: int | None
    multiple: int
    most_pixels: int
    rows_first: bool
    mean: np.ndarray
    scale: np.ndarray

    def read(self, body: bytes) -> Picture:
        """The picture of a JPEG or PNG. Raises BadInput for anything else, for damaged ones and for giants."""
        if not body:
            raise BadInput("the body is empty: an image is expected")
        image = _opened(body)
        _check_size(image.size, body)
        try:
            return self._decoded(image)
        except MemoryError as error:
            raise OutOfMemory("there is not enough memory to decode the image") from error
        except Exception as error:  # decoders fail in ways of their own: OSError, SyntaxError, struct.error, zlib.error
            raise BadInput(f"the {image.format} image is damaged or cut short") from error

    def tensor(self, picture: Picture, dtype: str = "float32") -> np.ndarray:
        """What the model reads: ``[1, channels, height, width]``, or as ``Layout`` says, filled up to ``Multiple``."""
        pixels = picture.pixels
        below, beside = (-side % self.multiple for side in pixels.shape[:2])
        if below or beside:
            pixels = np.pad(pixels, ((0, below), (0, beside), (0, 0)), mode="edge")
        if dtype == "float32":
            pixels = (pixels - self.mean) * self.scale
        if self.rows_first:
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels[None], dtype)

    def blank(self) -> Picture:
        """A black picture, to try a model with."""
        height, width = self.height or self.multiple, self.width or self.multiple
        return Picture(np.zeros((height, width, self.channels), np.uint8), width, height)

    def _decoded(self, image: Image) -> Picture:
        width, height = image.size
        orientation = _orientation(image)
        if orientation in _SIDEWAYS:
            width, height = height, width
        wanted = self._wanted(width, height)
        seen = wanted[::-1] if orientation in _SIDEWAYS else wanted
        image.draft(None, (2 * seen[0], 2 * seen[1]))  # a JPEG far too large is decoded at a half, quarter or eighth
        image = _in_channels(image, self.channels)
        if image.size != seen:
            image = image.resize(seen, _bilinear())
        pixels = np.asarray(image)
        return Picture(_upright(pixels.reshape(*pixels.shape[:2], self.channels), orientation), width, height)

    def _wanted(self, width: int, height: int) -> tuple[int, int]:
        """The size in which the model reads an image of this size."""
        if self.width and self.height:
            return self.width, self.height
        shrink = min(1.0, math.sqrt(self.most_pixels / (width * height)))
        wide, high = max(1, int(width * shrink)), max(1, int(height * shrink))
        # A strip that is thinner than the multiple is filled up, and then shortened for that.
        most_wide, most_high = (self.most_pixels // (side + -side % self.multiple) for side in (high, wide))
        return min(wide, max(1, most_wide)), min(high, max(1, most_high))


def reader(declared: Declaration) -> Reader:
    """The reader that a declaration describes. Raises LoadFailed; ModuleNotFoundError where Pillow is missing."""
    import PIL.Image
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin  # noqa: F401  # at loading, not at the first request

    shape = declared.numbers("ImageShape")
    if len(shape) != 3 or shape[0] not in (1, 3) or any(not 0 <= side <= _MOST_SIDE or side % 1 for side in shape):
        raise LoadFailed(f"{NAME}: ImageShape must be [1 or 3, height, width] with sides of at most {_MOST_SIDE}")
    channels, height, width = (int(size) for size in shape)
    if (height == 0) != (width == 0):
        raise LoadFailed(f"{NAME}: ImageShape must give both height and width, or 0 for both")
    layout = declared.text("Layout", "NCHW")
    if layout not in ("NCHW", "NHWC"):
        raise LoadFailed(f"{NAME}: Layout must be NCHW or NHWC")
    return Reader(
        channels,
        height or None,
        width or None,
        declared.whole("Multiple", 1, most=_MOST_SIDE) if not height else 1,
        declared.whole("MostPixels", 2**20, most=_MOST_SIDE**2),
        layout == "NCHW",
        _each(declared, "Mean", 0.0, channels),
        _each(declared, "Scale", 1 / 255, channels),
    )


def _each(declared: Declaration, key: str, default: float, channels: int) -> np.ndarray:
    values = declared.numbers(key, [default])
    if len(values) not in (1, channels) or any(abs(value) > _MOST_SHIFT for value in values):
        raise LoadFailed(f"{NAME}: {key} must be a list of one number, or one for each channel, of at most 1e9")
    return np.array(values, np.float32)


def _opened(body: bytes) -> Image:
    """The image, its head read and nothing decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(body), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadInput("the body is no image that can be read: JPEG or PNG is expected") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the warning where warnings are errors
        raise _too_large() from None
    except Exception as error:
        raise BadInput("the image is damaged: its head cannot be read") from error


def _check_size(size: tuple[int, int], body: bytes) -> None:
    pixels = size[0] * size[1]
    if pixels > MOST_PIXELS:
        raise _too_large()
    scans = body.count(_SCAN) if body.startswith(_JPEG) else 1
    if scans > _MOST_SCANS or scans * pixels > MOST_WORK:
        raise BadInput(f"the JPEG image has {scans} scans, too many for its size")


def _too_large() -> BadInput:
    return BadInput(f"the image has more than {MOST_PIXELS // 10**6} million pixels")


def _orientation(image: Image) -> int:
    """EXIF's orientation, 1 (upright) to 8; 1 where there is none or it cannot be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # an EXIF block of its own damage spoils no picture
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rows and columns as a person sees them (TIFF 6.0: what row 0 and column 0 are on the scene)."""
    if orientation in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _in_channels(image: Image, channels: int) -> Image:
    from PIL import Image as images

    image.load()
    if image.mode.startswith("I"):  # Pillow would cut sixteen bits off at 255
        deep = np.asarray(image).astype(np.uint32)
        image = images.fromarray((deep >> 8).clip(0, 255).astype(np.uint8))
    image.info.pop("transparency", None)  # Pillow warns where a palette has some
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _bilinear() -> Any:
    from PIL.Image import Resampling

    return Resampling.BILINEAR
