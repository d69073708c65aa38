"""Cut the breast out of every preprocessed image.

    python -m stages.crop_rois

rois.csv says for each image which box was cut, who found it (the detector, the breast mask, or
nobody: the whole image) and how sure the detector was. What the store remembers of the last run,
and work spread over a Dask cluster (`dask_map`), change no byte.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from mammo.base.atomic_files import fresh_folder, write_bytes, write_csv, write_json
from mammo.base.determinism import derive_seed, pin
from mammo.base.errors import UserError
from mammo.base.progress import track
from mammo.base.settings import Params, load_params
from mammo.compute.dask_map import map_over_dask, read_scheduler_address
from mammo.cropping.cached_crop import LIBRARIES, Search, describe_search, find_and_cut
from mammo.cropping.find_breast import Roi
from mammo.data.reading import read_table
from mammo.data.tables import MANIFEST, ROIS
from mammo.kept.result_store import Store, open_store
from stages.device import announce_device
from stages.runner import run_stage

PREPROCESSED_FOLDER = Path("outputs/preprocess")
DETECTOR_FOLDER = Path("outputs/train_detector")
OUT = Path("outputs/crop_rois")


def run(
    params: Params, preprocessed: Path, detector: Path, out: Path, store: Store | None = None
) -> None:
    """Find, cut, write."""
    manifest = read_table(preprocessed / "manifest.csv", MANIFEST)
    how = describe_search(
        detector.resolve(), params.crop, derive_seed(params.seed, "crop_rois"), params.threads
    )
    records = manifest.to_dict("records")
    paths = [preprocessed / "images" / row["path"] for row in records]
    rows = []
    found = track(_find_and_cut_all(paths, how, store), "crop_rois", len(paths))
    for row, (roi, png) in zip(records, found, strict=True):
        write_bytes(out / "images" / row["path"], png)
        rows.append(
            {
                "patient_id": row["patient_id"],
                "image_id": row["image_id"],
                "path": row["path"],
                "x1": int(roi.box.x1),
                "y1": int(roi.box.y1),
                "x2": int(roi.box.x2),
                "y2": int(roi.box.y2),
                "found_by": roi.found_by,
                "confidence": roi.confidence,
            }
        )
    rois = pd.DataFrame(rows, columns=list(ROIS.columns))
    write_csv(out / "rois.csv", rois)
    counts = rois["found_by"].value_counts()
    confidences = rois["confidence"].dropna()
    write_json(
        out / "metrics.json",
        {
            "images": len(rois),
            "found_by": {name: int(counts.get(name, 0)) for name in ("detector", "mask", "whole")},
            "mean_confidence": float(confidences.mean()) if len(confidences) else None,
        },
    )


def _find_and_cut_all(
    paths: list[Path], how: Search, store: Store | None
) -> Iterator[tuple[Roi, bytes]]:
    """Each image's region and the PNG of it, in order."""
    work = partial(find_and_cut, how=how, store=store)
    address = read_scheduler_address()
    if address is None:
        yield from map(work, paths)
        return
    away = [path.resolve() for path in paths]
    module = find_and_cut.__module__
    for path, result in zip(
        paths, map_over_dask(work, away, address, how.detector, module, LIBRARIES), strict=True
    ):
        if result is None:
            raise UserError(f"{path}: Dask workers die when they search it; look at their logs")
        yield result


def main() -> None:
    """Run the stage on the project's folders."""
    params = load_params()
    pin(derive_seed(params.seed, "crop_rois"), params.threads)
    announce_device(OUT.name, params)
    with fresh_folder(OUT) as out:
        run(params, PREPROCESSED_FOLDER, DETECTOR_FOLDER, out, open_store())


if __name__ == "__main__":
    run_stage(main)
