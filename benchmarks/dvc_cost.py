"""What DVC costs on as many files as the RSNA collection has, and what our own status saves.

    python -m benchmarks.dvc_cost            # 54,706 files of 4 kB; four minutes, 700 MB
    python -m benchmarks.dvc_cost 2000       # a quick look

A git repository with the files in `data`, four or five a folder, and three stages: one makes a
folder with as many files, the others depend on both folders, as ours do. Each command runs in a
process of its own. `flows.pipeline.status` is what `mammoflow retrain` asks.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PER_FOLDER = 54_706 / 11_913
PIPELINE = """
stages:
  copy:
    cmd: cp -r data/. images
    deps: [data]
    outs: [images]
  read_1:
    cmd: ls images | wc -l > one.txt
    deps: [data, images]
    outs: [one.txt]
  read_2:
    cmd: ls images | wc -l > two.txt
    deps: [data, images]
    outs: [two.txt]
"""


def write_files(data: Path, numbers: range) -> None:
    """One file of 4 kB a number, all different."""
    for number in numbers:
        path = data / f"{int(number / PER_FOLDER):06d}" / f"{number:06d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(4, "little") * 1024)


def measure(folder: Path, what: str, *command: str) -> None:
    """Run a command and print its seconds."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "DVC_NO_ANALYTICS": "1"}
    begin = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}")
    print(f"| {what} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Make the repository, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 54_706
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "init", "--quiet", name], check=True)
        subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
        write_files(folder / "data", range(count - count // 100))
        print(f"| {count} files | seconds |\n| --- | --- |", flush=True)
        measure(folder, "`dvc add data`, new, 1 % left out", "dvc", "add", "data")
        write_files(folder / "data", range(count - count // 100, count))
        measure(folder, "`dvc add data`, the 1 % more", "dvc", "add", "data")
        (folder / "dvc.yaml").write_text(PIPELINE)
        measure(
            folder, "`dvc repro`, of a stage that copies them and two small ones", "dvc", "repro"
        )
        measure(folder, "`dvc status`, nothing changed", "dvc", "status")
        measure(folder, "the same by `flows.pipeline.status`", "flows.pipeline.status")
        measure(folder, "`dvc repro`, nothing to do", "dvc", "repro")
        shutil.rmtree(folder / "images")
        measure(folder, "`dvc checkout` of the folder that the stage made", "dvc", "checkout")


if __name__ == "__main__":
    main()
