"""The sample data: digital phantoms of screening mammograms, in the layout of `data/`.

A bare clone needs something to run on, and no real mammogram may be put into a public repository.
So these are drawn: women with two breasts, two views each, half of them with a cancer that must be
found by looking. The set is the same to the byte on any machine and with any number of workers, so
that its hash can be committed (`texture` says how).

    women.py     what is known of a woman, a breast, a lesion, a machine
    plan.py      who has what
    anatomy.py   the shape of a breast in CC and MLO
    texture.py   exact noise and strokes
    tissue.py    fat, strands, gland, muscle, ducts and implants
    lesions.py   cancers and their look-alikes, drawn on a canvas.py
    view.py      one view, from anatomy to stored pixels

`mammo.datasets.dicom_writer` makes DICOM files of the pixels.
"""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from mammo.base.atomic_files import fresh_folder, write_bytes, write_csv
from mammo.base.errors import UserError
from mammo.base.processor import count_cores
from mammo.base.progress import track
from mammo.data.tables import image_file
from mammo.datasets.dicom_writer import (
    MammogramFacts,
    TransferSyntax,
    Window,
    encode_mammogram,
)
from mammo.datasets.phantom.plan import plan_women
from mammo.datasets.phantom.view import WHITE, View, draw_view
from mammo.datasets.phantom.women import Breast, MammographyUnit, Woman
from mammo.imaging.geometry import Box

WOMEN = 110
SEED = 2023
LONG_SIDE = 1280
"""Rows of the largest images; other machines have a fifth fewer."""

VIEWS = ("CC", "MLO")

TRAIN_COLUMNS = [
    "site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy",
    "invasive", "BIRADS", "implant", "density", "machine_id", "difficult_negative_case",
]  # fmt: skip
BOX_COLUMNS = ["image_id", "x1", "y1", "x2", "y2"]
_BOXED_SHARE = 3
"""A human outlined the breast in one image out of so many."""


def write_phantoms(
    folder: Path,
    women: int = WOMEN,
    seed: int = SEED,
    workers: int | None = None,
    long_side: int = LONG_SIDE,
) -> None:
    """Write a phantom set: `train.csv`, `breast_boxes.csv`, `lesions.csv` and `train_images/`.

    From six women on, every transfer syntax, photometric interpretation, kind of cancer and an
    implant are there. The bytes depend on `women`, `seed` and `long_side` alone.

    Args:
        folder: made by this call; it may exist if it is empty. It appears only when complete.
        women: how many, four images each.
        seed: of everything drawn by chance.
        workers: processes; by default one a core, and fewer for a small set.
        long_side: rows of the largest images, at least 128.

    Raises:
        UserError: if `folder` has something in it already, or the numbers make no sense.
    """
    if women < 1:
        raise UserError(f"a phantom set needs at least one woman, not {women}")
    if long_side < 128:
        raise UserError(f"phantoms need a long side of at least 128 pixels, not {long_side}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: name a new folder, or remove it first")
    plan = plan_women(women, seed)
    with fresh_folder(folder) as unfinished:
        work = partial(_write_woman, unfinished, long_side)
        exams = list(track(_in_parallel(work, plan, workers), "drawing phantoms", women))
        rows = [row for exam in exams for row in exam]
        write_csv(unfinished / "train.csv", _train_table(plan))
        _write_boxes(unfinished, rows)


def draw_phantom_dicom(seed: int = SEED, long_side: int = 512) -> bytes:
    """One phantom mammogram as a DICOM file (JPEG 2000, about 100 kB): an example of an input."""
    woman = plan_women(6, seed)[0]
    machine = replace(woman.machine, syntax=TransferSyntax.JPEG_2000)
    woman = replace(woman, machine=machine)
    breast = woman.breasts[0]
    return _dicom(woman, breast, "MLO", draw_view(woman, breast, "MLO", long_side))


ImageBoxes = tuple[str, Box, tuple[tuple[str, Box], ...]]
"""An image id, the breast's box, and the kinds and boxes of its lesions."""


def _in_parallel(
    work: "partial[list[ImageBoxes]]", plan: tuple[Woman, ...], workers: int | None
) -> Iterator[list[ImageBoxes]]:
    """`work` for each woman, in order."""
    # A worker takes seconds to start, so a small set is not worth many.
    processes = min(workers or min(count_cores(), 1 + len(plan) // 8), len(plan))
    if processes == 1:
        yield from map(work, plan)
        return
    # Fresh interpreters: forking a process that has threads (torch, OpenMP) can hang.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(work, plan)


def _write_woman(folder: Path, long_side: int, woman: Woman) -> list[ImageBoxes]:
    """Draw and write a woman's four images."""
    boxes = []
    for breast in woman.breasts:
        for view, image_id in zip(VIEWS, breast.image_ids, strict=True):
            drawn = draw_view(woman, breast, view, long_side)
            path = folder / image_file(woman.patient_id, image_id)
            write_bytes(path, _dicom(woman, breast, view, drawn))
            boxes.append((image_id, drawn.breast, drawn.lesions))
    return boxes


def _dicom(woman: Woman, breast: Breast, view: str, drawn: View) -> bytes:
    machine = woman.machine
    right = breast.laterality == "R"
    # Rows run toward the nipple unless mirrored; columns run toward the other breast (CC), and
    # toward the feet as well in MLO.
    medial = "L" if right else "R"
    orientation = ("P" if drawn.flipped else "A", medial if view == "CC" else f"F{medial}")
    day = int(woman.patient_id) % 28 + 1
    about = MammogramFacts(
        patient_id=woman.patient_id,
        patient_name=f"Phantom^{woman.patient_id}",
        image_id=breast.image_ids[VIEWS.index(view)],
        laterality=breast.laterality,
        view=view,
        patient_orientation=orientation,
        windows=_windows(machine),
        photometric="MONOCHROME1" if machine.inverted else "MONOCHROME2",
        pixel_spacing_mm=round(drawn.pixel_spacing_mm, 4),
        age_years=woman.age,
        study_date=f"2019{int(woman.patient_id) % 12 + 1:02d}{day:02d}",
        instance_number=1 + 2 * "LR".index(breast.laterality) + VIEWS.index(view),
        manufacturer=machine.manufacturer,
        model=machine.model,
        device_serial=f"{machine.machine_id:05d}",
        institution=f"Phantom Screening Site {machine.site_id}",
        # Side and view are, but nothing that tells who it is, which alone is meant (C.7.6.1).
        annotation_burned_in=False,
        implant=woman.implant,
        breast_thickness_mm=int(30 + 0.3 * breast.shape.half_width),
        peak_kilovolts=28,
    )
    return encode_mammogram(drawn.pixels, about, machine.syntax)


def _windows(machine: MammographyUnit) -> tuple[Window, ...]:
    """From just above the air to white, and a flatter one beside it on a few machines."""
    low, high = machine.offset, machine.offset + machine.gain
    center, width = (low + high) / 2, float(high - low)
    if machine.inverted:
        center = WHITE - center
    if machine.window_function == "SIGMOID":
        width *= 0.62  # at its ends a sigmoid is at 12 and 88 %: narrower, so that air is black
    windows = [Window(center, round(width), machine.window_function)]
    if machine.extra_window:
        windows.append(Window(center, 1.25 * width, machine.window_function, "SOFT"))
    return tuple(windows)


def _train_table(plan: tuple[Woman, ...]) -> pd.DataFrame:
    rows = [
        [
            woman.machine.site_id,
            woman.patient_id,
            image_id,
            breast.laterality,
            view,
            woman.age,
            int(breast.cancer),
            int(breast.biopsy),
            int(breast.invasive),
            breast.birads,
            int(woman.implant),
            woman.density if woman.machine.site_id == 1 else "",  # site 2 does not report it
            woman.machine.machine_id,
            int(breast.difficult),
        ]
        for woman in plan
        for breast in woman.breasts
        for view, image_id in zip(VIEWS, breast.image_ids, strict=True)
    ]
    return pd.DataFrame(rows, columns=TRAIN_COLUMNS)


def _write_boxes(folder: Path, images: list[ImageBoxes]) -> None:
    # Images come as L CC, L MLO, R CC, R MLO of each woman: four and three share no divisor, so
    # every third image takes all kinds in turn.
    outlined = [
        [image_id, *_corners(breast)]
        for index, (image_id, breast, _) in enumerate(images)
        if index % _BOXED_SHARE == 0
    ]
    found = [
        [image_id, *_corners(box), kind] for image_id, _, lesions in images for kind, box in lesions
    ]
    write_csv(folder / "breast_boxes.csv", pd.DataFrame(outlined, columns=BOX_COLUMNS))
    write_csv(folder / "lesions.csv", pd.DataFrame(found, columns=[*BOX_COLUMNS, "kind"]))


def _corners(box: Box) -> list[int]:
    return [int(value) for value in (box.x1, box.y1, box.x2, box.y2)]
