"""All stages of a tiny pipeline in one process, from DICOM files to the report.

    python -m tests.support.tiny_pipeline FOLDER                          # on this processor
    qemu-x86_64 -cpu Haswell python -m tests.support.tiny_pipeline FOLDER # on another

One process, because what an emulated process starts runs natively: nine emulated ones would load
torch nine times, and preprocess's workers would not be emulated at all. FOLDER holds data/ and
params.yaml (`prepare`), and gets outputs/.
"""

import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

import stages  # pins what libraries read as they load
from mammo.datasets.phantom.draw import write_phantoms
from tests.imports import ROOT

STAGES = tuple(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])

TINY: dict[str, dict[str, Any]] = {
    "preprocess": {"long_side": 160},
    "split": {"validation": 0.33, "test": 0.34, "salt": "processors-70"},
    "detector": {"image_size": 64, "epochs": 4, "batch_size": 2, "learning_rate": 0.01},
    "crop": {"confidence": 0.001},
    "classifier": {
        "image_height": 64, "image_width": 48, "epochs": 2, "patience": 2, "batch_size": 8,
    },
    "tune": {"trials": 2, "epochs": 2},
    "evaluate": {"bootstrap": 100},
    "explain": {"images": 1},
}  # fmt: skip


def prepare(folder: Path) -> None:
    """Draw the data, and write the project's own settings with TINY's instead."""
    write_phantoms(folder / "data", women=9, seed=9, long_side=256, workers=1)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["threads"] = 1  # two would wait for each other on the processors that emulators share
    for section, changes in TINY.items():
        settings[section].update(changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def run(folder: Path) -> None:
    """Run the stages' own `main` in a folder, one after the other."""
    os.chdir(folder)
    for name in STAGES:
        start = time.process_time()
        stage: Any = import_module(f"{stages.__name__}.{name}")
        if name == "preprocess":
            stage.count_cores = lambda: 0  # no worker processes: see above
        if name == "report":
            stage.TEMPLATE = ROOT / stage.TEMPLATE
        stage.main()
        print(f"{name}: {time.process_time() - start:.1f} s of processor", flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
