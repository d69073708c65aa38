"""Boxes and the two coordinate systems they live in.

*Stored* coordinates are pixels of the DICOM's pixel matrix, as `breast_boxes.csv` and
`lesions.csv` use them. *Image* coordinates are pixels of the preprocessed image: the breast turned
to the left edge, scaled, aspect kept. x runs right and y down; a box covers [x1, x2) x [y1, y2).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """An axis-aligned box, half-open: a box of one pixel at the origin is (0, 0, 1, 1)."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Area in square pixels; 0 for an empty box."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    def contains(self, x: float, y: float) -> bool:
        """Whether the point lies inside."""
        return self.x1 <= x < self.x2 and self.y1 <= y < self.y2

    def shift(self, dx: float, dy: float) -> "Box":
        """The box moved by (dx, dy)."""
        return Box(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)

    def grow(self, margin: float) -> "Box":
        """The box with `margin` pixels more on each side."""
        return Box(self.x1 - margin, self.y1 - margin, self.x2 + margin, self.y2 + margin)

    def clip(self, width: float, height: float) -> "Box":
        """The part of the box inside an image of `width` x `height` pixels."""
        return Box(
            min(max(self.x1, 0.0), width),
            min(max(self.y1, 0.0), height),
            min(max(self.x2, 0.0), width),
            min(max(self.y2, 0.0), height),
        )

    def iou(self, other: "Box") -> float:
        """Intersection over union, in [0, 1]."""
        shared = Box(
            max(self.x1, other.x1),
            max(self.y1, other.y1),
            min(self.x2, other.x2),
            min(self.y2, other.y2),
        ).area
        total = self.area + other.area - shared
        return shared / total if total > 0 else 0.0


@dataclass(frozen=True)
class Placement:
    """How a stored image became a preprocessed one: mirrored or not, then scaled.

    Widths and heights in pixels.
    """

    stored_width: int
    stored_height: int
    width: int
    height: int
    flipped: bool

    def to_image(self, box: Box) -> Box:
        """A box in stored coordinates, in image coordinates."""
        x1, x2 = box.x1, box.x2
        if self.flipped:
            x1, x2 = self.stored_width - x2, self.stored_width - x1
        across, down = self.width / self.stored_width, self.height / self.stored_height
        return Box(x1 * across, box.y1 * down, x2 * across, box.y2 * down)

    def to_stored(self, box: Box) -> Box:
        """A box in image coordinates, in stored coordinates: the inverse of `to_image`."""
        across, down = self.stored_width / self.width, self.stored_height / self.height
        x1, x2 = box.x1 * across, box.x2 * across
        if self.flipped:
            x1, x2 = self.stored_width - x2, self.stored_width - x1
        return Box(x1, box.y1 * down, x2, box.y2 * down)
