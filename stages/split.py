"""Divide the women into train, validation and test.

    python -m stages.split

Reads the manifest of preprocess, writes split.csv (one row a woman) and metrics.json (counts).
"""

from pathlib import Path

from mammo.base.atomic_files import fresh_folder, write_csv, write_json
from mammo.base.progress import say
from mammo.base.settings import Params, load_params
from mammo.data import reading, tables
from mammo.data.splits import assign, check, count
from stages.runner import run_stage

MANIFEST_FILE = Path("outputs/preprocess/manifest.csv")
OUT = Path("outputs/split")


def run(params: Params, manifest_path: Path, out: Path) -> None:
    """Write split.csv and metrics.json to `out`.

    Raises:
        UserError: if a split is empty, or its breasts are of one class by either target.
    """
    manifest = reading.read_table(manifest_path, tables.MANIFEST)
    split = assign(manifest["patient_id"], params.split)
    metrics = {}
    for section, target in (
        ("evaluate", params.evaluate.target),
        ("classifier", params.classifier.target),
    ):
        counts = count(manifest, split, target)
        check(counts, target, manifest_path)
        metrics[section] = counts.to_dict("index")
    say(f"by the target of evaluate ({' or '.join(params.evaluate.target)}):")
    for name, row in metrics["evaluate"].items():
        say(f"  {name}: " + ", ".join(f"{number} {unit}" for unit, number in row.items()))
    write_csv(out / "split.csv", tables.SPLIT.validate(split))
    write_json(out / "metrics.json", metrics)


def main() -> None:
    """Run the stage in the current folder."""
    params = load_params()
    with fresh_folder(OUT) as out:
        run(params, MANIFEST_FILE, out)


if __name__ == "__main__":
    run_stage(main)
