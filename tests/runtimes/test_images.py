"""Images as models read them: every kind of JPEG and PNG, upright, in the declared size; and hostile ones refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serving.errors import BadInput, LoadFailed
from serving.runtimes.algorithms import images
from serving.runtimes.algorithms.images import Reader, reader
from serving.runtimes.declaration import Declaration

#: Red above, green on the left below, blue on the right below: no turn or mirror leaves it as it is.
SCENE = np.zeros((32, 48, 3), np.uint8)
SCENE[:16], SCENE[16:, :24], SCENE[16:, 24:] = (200, 10, 10), (10, 200, 10), (10, 10, 200)


def made(**settings: Any) -> Reader:
    """The reader of a declaration."""
    return reader(Declaration("image-classification", Path(), {"ImageShape": [3, 0, 0], **settings}))


def packed(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """A file of an image."""
    body = io.BytesIO()
    image.save(body, format=kind, **options)
    return body.getvalue()


OWN = made()
PHOTO = packed(Image.fromarray(SCENE), "jpeg", quality=95)
DRAWN = packed(Image.fromarray(SCENE))


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [DRAWN, PHOTO, packed(Image.fromarray(SCENE), "jpeg", progressive=True, quality=95)])
def test_jpeg_and_png_are_read_in_their_own_size(body: bytes) -> None:
    """Both by their content; JPEG loses a little."""
    picture = OWN.read(body)
    assert (48, 32) == (picture.width, picture.height)
    assert np.abs(picture.pixels[4:12, 4:44].astype(int) - SCENE[4:12, 4:44]).max() < 12


GREY = Image.fromarray(np.full((8, 8), 120, np.uint8))
DEEP = Image.fromarray(np.full((8, 8), 120 * 256 + 99, np.uint16))
CLEAR = Image.merge("RGBA", [GREY, GREY, GREY, Image.new("L", (8, 8), 0)])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(packed(GREY), id="grey"),
        pytest.param(packed(GREY, "jpeg"), id="grey-jpeg"),
        pytest.param(packed(DEEP), id="sixteen-bits"),
        pytest.param(packed(CLEAR), id="transparent"),
        pytest.param(packed(Image.merge("LA", [GREY, Image.new("L", (8, 8), 9)])), id="grey-transparent"),
        pytest.param(packed(GREY.convert("P"), transparency=bytes(120) + b"\0"), id="palette-transparent"),
        pytest.param(packed(GREY.convert("RGB").convert("CMYK"), "jpeg", quality=95), id="four-inks"),
        pytest.param(packed(GREY, save_all=True, append_images=[Image.new("L", (8, 8), 0)]), id="animated"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_is_read_as_its_colours(body: bytes, channels: int) -> None:
    """Grey or colour as the model wants it: opaque, by the upper eight bits, the first frame."""
    pixels = made(ImageShape=[channels, 0, 0]).read(body).pixels
    assert (8, 8, channels) == pixels.shape
    assert (119, 121) <= (pixels.min(), 121) >= (pixels.max(), 121)


def test_black_and_white_is_black_and_white() -> None:
    """One bit is 0 or 255."""
    bits = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    np.testing.assert_array_equal(np.eye(8) * 255, made(ImageShape=[1, 0, 0]).read(packed(bits)).pixels[:, :, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [[3, 0, 0], [3, 20, 60]])
def test_exifs_orientation_is_followed(orientation: int, shape: list[int]) -> None:
    """As Pillow itself turns the image, size included, before it is scaled."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = packed(Image.fromarray(SCENE), exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
    picture = made(ImageShape=shape).read(body)
    assert turned.size == (picture.width, picture.height)
    expected = turned.resize((60, 20), Image.Resampling.BILINEAR) if shape[1] else turned
    assert np.abs(np.asarray(expected).astype(int) - picture.pixels).max() <= 1


@pytest.mark.parametrize("orientation", [0, 9, 60_000])
def test_an_orientation_that_is_none_leaves_the_image_as_it_is(orientation: int) -> None:
    """A camera's mistake spoils no picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(SCENE, OWN.read(packed(Image.fromarray(SCENE), exif=exif)).pixels)


def test_a_photograph_much_larger_than_the_model_wants_is_the_same_picture() -> None:
    """It is decoded at a part of its size, which no answer shows."""
    large = Image.fromarray(SCENE).resize((48 * 20, 32 * 20), Image.Resampling.NEAREST)
    picture = made(ImageShape=[3, 32, 48]).read(packed(large, "jpeg", quality=95))
    assert (960, 640) == (picture.width, picture.height)
    assert np.abs(picture.pixels.astype(int) - SCENE)[2:14, 2:46].max() < 12


# --- what the model is given -------------------------------------------------------------------------------------


def test_pixels_are_moved_and_scaled_as_declared() -> None:
    """``(pixel - Mean) * Scale``, channel by channel, channels first."""
    chosen = made(Mean=[10, 20, 30], Scale=[0.5, 1, 2])
    tensor = chosen.tensor(chosen.read(DRAWN))
    assert ((1, 3, 32, 48), "float32") == (tensor.shape, tensor.dtype.name)
    assert [95.0, -10.0, -40.0] == tensor[0, :, 0, 0].tolist()


def test_pixels_are_from_0_to_1_unless_said() -> None:
    """As most nets of images read them."""
    tensor = OWN.tensor(OWN.read(packed(Image.new("RGB", (2, 2), (255, 0, 51)))))
    np.testing.assert_allclose([1, 0, 0.2], tensor[0, :, 0, 0], rtol=1e-6)


def test_channels_may_come_last_and_bytes_stay_bytes() -> None:
    """``Layout`` NHWC, and a model of uint8."""
    chosen = made(Layout="NHWC")
    tensor = chosen.tensor(chosen.read(DRAWN), "uint8")
    np.testing.assert_array_equal(SCENE[None], tensor)


def test_edges_are_filled_up_to_a_multiple() -> None:
    """With what stands at the edge."""
    chosen = made(Multiple=10)
    tensor = chosen.tensor(chosen.read(DRAWN), "uint8")
    assert (1, 3, 40, 50) == tensor.shape
    assert [10, 10, 200] == tensor[0, :, 39, 49].tolist()


@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000), multiple=st.integers(1, 64), most=st.integers(4096, 10**6)
)
@example(width=1, height=3000, multiple=64, most=4096)
def test_what_a_model_reads_is_bounded_whatever_is_sent(width: int, height: int, multiple: int, most: int) -> None:
    """In its own size an image is never enlarged, and has at most ``MostPixels`` before the longer side is filled."""
    wide, high = made(Multiple=multiple, MostPixels=most)._wanted(width, height)
    assert 1 <= wide <= width
    assert 1 <= high <= height
    assert wide * high <= most
    if width * height <= most and min(width, height) >= multiple:
        assert abs(wide / high - width / height) < 1e-9 or most < (width + multiple) * (height + multiple)


# --- hostile ones ------------------------------------------------------------------------------------------------


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose head claims to be that large."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (head, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (10_000, 10_000), (100_000, 100_000), (2**31 - 1, 1)])
def test_giants_are_refused_before_anything_is_unpacked(width: int, height: int) -> None:
    """By their heads, with the limit."""
    with pytest.raises(BadInput, match="more than 50 million pixels"):
        OWN.read(claims(width, height))


@pytest.mark.parametrize(("side", "scans"), [(32, 200), (5000, 60)])
def test_a_jpeg_of_endless_scans_is_refused(side: int, scans: int) -> None:
    """Each may take as long as the whole picture."""
    body = packed(Image.new("L", (side, side)), "jpeg")
    scan = body[body.index(b"\xff\xda") : -2]
    with pytest.raises(BadInput, match=f"the JPEG image has {scans + 1} scans, too many for its size"):
        OWN.read(body[:-2] + scan * scans + b"\xff\xd9")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"hello", "no image that can be read: JPEG or PNG is expected"),
        (packed(GREY, "gif"), "JPEG or PNG is expected"),
        (packed(GREY, "bmp"), "JPEG or PNG is expected"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "JPEG or PNG is expected"),
        (DRAWN[: len(DRAWN) // 2], "the PNG image is damaged or cut short"),
        (PHOTO[:-20], "the JPEG image is damaged or cut short"),
        (claims(0, 5), "damaged|no image"),
        (claims(5, 5), "damaged"),
    ],
    ids=["empty", "text", "gif", "bmp", "postscript", "half a png", "jpeg cut short", "no width", "no pixels"],
)
def test_what_is_no_whole_image_is_refused_in_a_sentence(body: bytes, words: str) -> None:
    """Never a failure of the model's."""
    with pytest.raises(BadInput, match=words):
        OWN.read(body)


@given(st.sampled_from([DRAWN, PHOTO]), st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=4)), max_size=4))
def test_damaged_images_are_read_or_refused(body: bytes, damage: list[tuple[int, bytes]]) -> None:
    """Whatever bytes stand wherever."""
    spoiled = bytearray(body)
    for at, instead in damage:
        at %= len(spoiled)
        spoiled[at : at + len(instead)] = instead
    try:
        picture = made(ImageShape=[3, 8, 8]).read(bytes(spoiled))
    except BadInput as error:
        assert "\n" not in error.message
    else:
        assert (8, 8, 3) == picture.pixels.shape


# --- declarations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ImageShape": None}, "ImageShape must be a list of numbers"),
        ({"ImageShape": [3, 8]}, r"ImageShape must be \[1 or 3, height, width\]"),
        ({"ImageShape": [2, 8, 8]}, "ImageShape"),
        ({"ImageShape": [3, 8.5, 8]}, "ImageShape"),
        ({"ImageShape": [3, 10**6, 8]}, "sides of at most 4096"),
        ({"ImageShape": [3, 8, 0]}, "both height and width"),
        ({"Layout": "CHW"}, "Layout must be NCHW or NHWC"),
        ({"Mean": [1, 2]}, "Mean must be a list of one number, or one for each channel"),
        ({"Scale": [1e38]}, "Scale must be .* of at most 1e9"),
        ({"Scale": "1"}, "Scale must be a list of numbers"),
        ({"Multiple": 0}, "Multiple must be a whole number"),
    ],
)
def test_a_declaration_that_describes_no_image_is_refused(settings: dict[str, Any], words: str) -> None:
    """When the model is loaded, by the setting's name."""
    with pytest.raises(LoadFailed, match=words):
        made(**settings)


def test_formats_are_those_documented() -> None:
    """Each further decoder is a further way in."""
    assert ("JPEG", "PNG") == images.FORMATS
