"""What a predictor says of an image, whatever computes it: this module imports no torch."""

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammo.base.errors import UserError
from mammo.base.settings import Params
from mammo.cropping.find_breast import FoundBy
from mammo.explanation.overlay import Heat, draw_overlay
from mammo.imaging.geometry import Box
from mammo.imaging.png import encode_png
from mammo.serving.finding import NOTICE, OperatingPoint

EVALUATION_FILE = Path("evaluate") / "metrics.json"
"""In a predictor's folder: the scores of the stage evaluate, whose threshold is the model's."""

_HEAD = 33  # bytes of a PNG's signature and first chunk


@dataclass(frozen=True)
class NetworkOutput:
    """What the networks say of a prepared image."""

    probability: float  # of the target, in [0, 1]
    box: Box  # of the breast, in whole pixels of the prepared image
    found_by: FoundBy
    breast: NDArray[np.uint8]  # (h, w): that part of the image
    heat: Heat | None  # (h, w) in [0, 1]: Grad-CAM of it; None if it was not asked for


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image."""

    probability: float  # of the target, in [0, 1]
    box: Box  # of the breast, in stored coordinates
    found_by: FoundBy
    heatmap: bytes | None  # PNG: the breast, turned to the left, under Grad-CAM's heat


def draw_heatmap(output: NetworkOutput) -> bytes | None:
    """Draw the breast under the heat, as a PNG whose text says the notice; None without heat."""
    if output.heat is None:
        return None
    picture = encode_png(draw_overlay(output.breast, output.heat))
    text = b"tEXtDisclaimer\0" + NOTICE.encode("latin-1")  # ISO/IEC 15948, 11.3.4.3
    length, checksum = (struct.pack(">I", n) for n in (len(text) - 4, zlib.crc32(text)))
    return picture[:_HEAD] + length + text + checksum + picture[_HEAD:]


def read_operating_point(file: Path, params: Params) -> OperatingPoint | None:
    """The threshold of the breasts, as the stage evaluate chose it.

    Raises:
        UserError: if the file holds none.
    """
    if not file.exists():
        return None
    try:
        threshold = json.loads(file.read_text(encoding="utf-8"))["threshold"]["breast"]
        if isinstance(threshold, float) and 0 <= threshold <= 1:
            return OperatingPoint(threshold, params.evaluate.beta)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{file}: it holds no threshold of the breasts; run the stage evaluate again")
