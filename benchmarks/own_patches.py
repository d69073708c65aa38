"""First weights from a study's own lesions: a backbone for each fold, from its train women alone.

The patches are those of the stage `patches`, cut once for a data set; what a woman's patches are
does not depend on who else is in it. Each fold's backbone learns, as the stage `pretrain`
does it, from the patches of the fold's train women, who are divided once more to choose an epoch.
"""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

import hashlib
from pathlib import Path

import numpy as np

from benchmarks.studies import LIBRARIES, PictureStudy
from mammo.base.atomic_files import fresh_folder, write_csv
from mammo.base.determinism import derive_seed, pin
from mammo.base.progress import say
from mammo.base.settings import Params
from mammo.kept.code_version import code_version, key_of
from mammo.patches.pretrain import read_patches
from mammo.patches.settings import FILE, Pretraining, load_pretraining
from mammo.patches.tables import PATCHES, require_both_classes
from stages import patches as cutting
from stages import pretrain as pretraining

PRETRAINING = Path(__file__).parents[1] / FILE


def read_settings(params: Params) -> Pretraining:
    """The settings of a pretraining, for films as `params` prepares them and its kinds of lesion.

    The women are those of the collection; which of them a fold may learn from, its split says.
    """
    found = load_pretraining(PRETRAINING)
    cut = {"kinds": params.explain.kinds, "long_side": params.preprocess.long_side}
    return found.model_copy(update={"patches": found.patches.model_copy(update=cut)})


def find_patches(study: PictureStudy, params: Params, keep: Path) -> Path:
    """Where the patches of all women of a study are, or would be."""
    settings = read_settings(params)
    code = code_version("stages.patches", LIBRARIES)
    key = key_of(study.content, settings.patches.model_dump_json(), code)
    return keep / "own-patches" / key[:16]


def pretrain_fold(
    study: PictureStudy, fold: int, seed: int, params: Params, keep: Path, train: bool
) -> Path | None:
    """The backbone that has seen the lesions of a fold's train women; it is made once.

    Args:
        study: with films; its division says who the women are.
        fold: of `study.folds`.
        seed: of the pretraining.
        params: of the study.
        keep: a folder for all that is made.
        train: False: do not make it.

    Returns:
        A safetensors file; None if it is not there and shall not be made.

    Raises:
        UserError: as the stages patches and pretrain.
    """
    assert study.films is not None
    settings = read_settings(params).model_copy(update={"seed": seed})
    patches = find_patches(study, params, keep)
    if not patches.exists():
        if not train:
            return None
        say(f"{study.name}: patches")
        with fresh_folder(patches) as out:
            cutting.run(settings, params.split, study.films, out)
    women = set(study.table.loc[np.array(study.folds[fold]) == "train", "patient_id"])
    table = read_patches(patches)
    table = table[table["patient_id"].isin(women)]
    who = hashlib.sha256(" ".join(table["image_id"]).encode()).hexdigest()
    code = code_version("stages.pretrain", LIBRARIES)
    folder = patches / "backbones" / key_of(who, settings.model_dump_json(), code)[:16]
    weights = folder / "backbone.safetensors"
    if weights.is_file():
        return weights
    if not train:
        return None
    require_both_classes(table, study.films)
    with fresh_folder(folder) as out:
        write_csv(out / str(PATCHES.name), table)
        (out / "images").symlink_to((patches / "images").resolve())
        pin(derive_seed(seed, "pretrain"), params.threads)
        pretraining.run(settings, out, out, out)
    return weights
