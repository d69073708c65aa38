"""Boxes, and the way between stored and image coordinates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.imaging.geometry import Box, Placement

SIDES = st.integers(1, 5000)
COORDINATES = st.floats(-1000, 6000)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, y1 = draw(COORDINATES), draw(COORDINATES)
    return Box(x1, y1, x1 + draw(st.floats(0.5, 5000)), y1 + draw(st.floats(0.5, 5000)))


placements = st.builds(Placement, SIDES, SIDES, SIDES, SIDES, st.booleans())


def numbers(box: Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


@given(placements, boxes())
def test_to_stored_undoes_to_image(placement: Placement, box: Box) -> None:
    there_and_back = placement.to_stored(placement.to_image(box))
    assert numbers(there_and_back) == pytest.approx(numbers(box), rel=1e-9, abs=1e-6)


@given(placements, boxes())
def test_to_image_undoes_to_stored(placement: Placement, box: Box) -> None:
    there_and_back = placement.to_image(placement.to_stored(box))
    assert numbers(there_and_back) == pytest.approx(numbers(box), rel=1e-9, abs=1e-6)


@given(placements)
def test_the_whole_stored_image_is_the_whole_image(placement: Placement) -> None:
    stored = Box(0, 0, placement.stored_width, placement.stored_height)
    whole = 0, 0, placement.width, placement.height
    assert numbers(placement.to_image(stored)) == pytest.approx(whole)


@given(placements, boxes())
def test_a_box_stays_a_box(placement: Placement, box: Box) -> None:
    moved = placement.to_image(box)
    assert moved.x1 < moved.x2
    assert moved.y1 < moved.y2
    scale = placement.width * placement.height / placement.stored_width / placement.stored_height
    assert moved.area == pytest.approx(box.area * scale)


def test_a_flip_takes_the_right_edge_to_the_left() -> None:
    placement = Placement(400, 600, 200, 300, flipped=True)
    assert placement.to_image(Box(300, 0, 400, 60)) == Box(0, 0, 50, 30)
    assert placement.to_image(Box(0, 0, 100, 60)) == Box(150, 0, 200, 30)


@given(boxes(), boxes())
def test_iou_is_symmetric_and_between_0_and_1(one: Box, other: Box) -> None:
    assert 0 <= one.iou(other) <= 1
    assert one.iou(other) == pytest.approx(other.iou(one))


@given(boxes())
def test_iou_with_itself_is_1(box: Box) -> None:
    assert box.iou(box) == pytest.approx(1)


@given(boxes(), st.floats(0.01, 1))
def test_iou_of_boxes_side_by_side_is_0(box: Box, gap: float) -> None:
    assert box.iou(box.shift(box.width + gap, 0)) == 0


def test_iou_of_a_half_is_a_half_and_of_nothing_is_0() -> None:
    assert Box(0, 0, 2, 2).iou(Box(0, 0, 2, 1)) == 0.5
    assert Box(0, 0, 0, 0).iou(Box(0, 0, 0, 0)) == 0  # empty: no division by zero


@given(boxes(), SIDES, SIDES)
def test_a_clipped_box_lies_in_the_image_and_in_the_box(box: Box, width: int, height: int) -> None:
    clipped = box.clip(width, height)
    assert 0 <= clipped.x1 <= clipped.x2 <= width
    assert 0 <= clipped.y1 <= clipped.y2 <= height
    assert clipped.area <= box.area
    assert clipped.clip(width, height) == clipped


@given(boxes(), st.floats(0, 100))
def test_growing_adds_the_margin_on_each_side(box: Box, margin: float) -> None:
    grown = box.grow(margin)
    assert grown.width == pytest.approx(box.width + 2 * margin)
    assert grown.height == pytest.approx(box.height + 2 * margin)
    assert grown.contains((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2)


def test_a_box_is_half_open() -> None:
    pixel = Box(0, 0, 1, 1)
    assert pixel.contains(0, 0)
    assert not pixel.contains(1, 0)
    assert not pixel.contains(0, 1)
