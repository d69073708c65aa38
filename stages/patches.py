"""Cut patches of lesions and of healthy tissue, or take crops, for a backbone to learn from.

    python -m stages.patches

A stage of pretraining/dvc.yaml. Writes images/PATIENT/PATCH.png, patches.csv (one row a patch),
source.json (what the collection is) and metrics.json (counts). Where the women are those of data/,
none is of its validation or test.
"""

from pathlib import Path

import cv2
import pandas as pd

from mammo.base.atomic_files import fresh_folder, write_bytes, write_csv, write_json
from mammo.base.determinism import derive_seed
from mammo.base.progress import say
from mammo.base.settings import Split, load_params
from mammo.imaging.png import encode_png
from mammo.patches.cut import gather_patches
from mammo.patches.settings import Pretraining, load_pretraining
from mammo.patches.tables import (
    HEALTHY,
    PATCHES,
    SOURCE,
    crop_file,
    read_source,
    require_both_classes,
)
from stages.runner import run_stage

OUT = Path("outputs/patches")


def run(params: Pretraining, served: Split, source: Path, out: Path) -> None:
    """Write the patches to `out`.

    Args:
        params: the settings of the pretraining.
        served: how the collection that the backbone will serve is divided.
        source: the folder that patches are taken from.
        out: an existing folder.

    Raises:
        UserError: as `gather_patches`; or if a split cannot be learnt from.
    """
    seed = derive_seed(params.seed, "patches")
    rows = []
    for patch in gather_patches(source, params.patches, served, seed):
        write_bytes(out / crop_file(patch.patient_id, patch.image_id), encode_png(patch.pixels))
        rows.append({name: getattr(patch, name) for name in PATCHES.columns})
    table = pd.DataFrame(rows, columns=list(PATCHES.columns))
    require_both_classes(table, source)
    write_csv(out / str(PATCHES.name), PATCHES.validate(table))
    write_json(out / SOURCE, read_source(source))
    counts = {
        split: {
            "women": int(part["patient_id"].nunique()),
            "patches": len(part),
            "cancer": int(part["cancer"].sum()),
            "healthy": int((part["kind"] == HEALTHY).sum()),
        }
        for split, part in table.groupby("split")
    }
    write_json(out / "metrics.json", counts)
    say(f"patches: {len(table)} of {table['patient_id'].nunique()} women")


def main() -> None:
    """Run the stage in the current folder."""
    cv2.setNumThreads(1)
    params = load_pretraining()
    with fresh_folder(OUT) as out:
        run(params, load_params().split, Path(params.patches.source), out)


if __name__ == "__main__":
    run_stage(main)
