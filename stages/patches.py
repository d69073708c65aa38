"""Cut patches of lesions and of healthy tissue, or take crops, for a backbone to learn from.

    python -m stages.patches

A stage of pretraining/dvc.yaml. Writes images/PATIENT/PATCH.png, patches.csv (one row a patch),
source.json (what the collection is) and metrics.json (counts). Women who are in validation or test
of the collection that the backbone will serve are left out.
"""

from pathlib import Path

import cv2
import pandas as pd

from mammo.base.atomic_files import fresh_folder, write_bytes, write_csv, write_json
from mammo.base.determinism import stage_seed
from mammo.base.progress import say
from mammo.base.settings import Split, load_params
from mammo.imaging.png import encode_png
from mammo.patches.cut import find_women_kept_away, gather_patches
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


def run(params: Pretraining, served: Split, source: Path, serves: Path, out: Path) -> None:
    """Write the patches to `out`.

    Args:
        params: the settings of the pretraining.
        served: how the collection that the backbone will serve is divided.
        source: the folder that patches are taken from.
        serves: that collection's train.csv.
        out: an existing folder.

    Raises:
        UserError: as `gather_patches`; or if a split cannot be learnt from.
    """
    kept_away = find_women_kept_away(serves, served)
    seed = stage_seed(params.seed, "patches")
    rows = []
    for patch in gather_patches(source, params.patches, kept_away, seed):
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
    write_json(out / "metrics.json", {**counts, "women_kept_away": len(kept_away)})
    say(f"patches: {len(table)} of {table['patient_id'].nunique()} women")


def main() -> None:
    """Run the stage in the current folder."""
    cv2.setNumThreads(1)
    params = load_pretraining()
    patches = params.patches
    with fresh_folder(OUT) as out:
        run(params, load_params().split, Path(patches.source), Path(patches.serves), out)


if __name__ == "__main__":
    run_stage(main)
