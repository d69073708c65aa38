"""The other Pythons of this machine: the locked environment, every module, the same bytes.

    make pythons        # or: python -m tests.pythons

For each of Python 3.11 to 3.13 that is found beside the one that runs this, it builds the
environment of requirements.lock in build/, imports every module of ours, and runs a tiny pipeline,
from DICOM files to the report, whose outs must have the bytes that they have under this Python.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.imports import FLOORS, ROOT
from tests.support.tiny_pipeline import prepare
from tests.test_processors import contents, difference

MINORS = (11, 12, 13)
IMPORT = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
PROGRAMS = ("__main__", "orphan_guard", "reaper")  # run by their file, and need nothing of ours


def main() -> None:
    """Try each that there is; exit with 1 if one of them fails."""
    others = {minor: found for minor in MINORS if (found := other_python(minor))}
    if not others:
        say("this machine has no other Python from 3.11 to 3.13: nothing to compare with")
        return
    with tempfile.TemporaryDirectory(prefix="pythons-") as scratch:
        prepare(Path(scratch) / "before")
        here = run_pipeline(sys.executable, Path(scratch), "here")
        for minor, found in others.items():
            python = environment(found, minor)
            say(f"3.{minor}: importing every module")
            run(python, "-c", IMPORT, *modules())
            told = difference(here, run_pipeline(python, Path(scratch), f"3.{minor}"))
            if told:
                sys.exit(f"3.{minor}: {told}")
            say(f"3.{minor}: all {len(here)} files of a tiny pipeline have the same bytes")


def other_python(minor: int) -> str | None:
    """A Python of that version that is not the one running, and works."""
    command = f"python3.{minor}"
    if sys.version_info.minor == minor or shutil.which(command) is None:
        return None
    asked = [command, "-c", "import sys; print(sys.executable)"]  # pyenv's shims may lead nowhere
    said = subprocess.run(asked, capture_output=True, text=True)
    return said.stdout.strip() if said.returncode == 0 else None


def environment(python: str, minor: int) -> str:
    """Build the locked environment in build/; its Python."""
    folder = ROOT / "build" / f"python3.{minor}"
    say(f"3.{minor}: the environment of requirements.lock, in {folder.relative_to(ROOT)}")
    if not (folder / "bin" / "python").exists():
        run(python, "-m", "venv", str(folder))
    made = str(folder / "bin" / "python")
    uv = shutil.which("uv") or "uv"
    subprocess.run(
        [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", made, "requirements.lock"],
        cwd=ROOT,
        check=True,
    )
    return made


def modules() -> list[str]:
    """Every module of ours; first those that set what libraries read as they load."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for floor in FLOORS
        for path in sorted((ROOT / floor).rglob("*.py"))
        if path.stem not in PROGRAMS
    ]
    return sorted(names, key=lambda name: name not in ("flows", "stages"))


def run_pipeline(python: str, scratch: Path, name: str) -> dict[str, bytes]:
    """The outs of the tiny pipeline, by name."""
    say(f"{name}: a tiny pipeline")
    shutil.copytree(scratch / "before", scratch / name)
    run(python, "-m", "tests.support.tiny_pipeline", str(scratch / name))
    return contents(scratch / name / "outputs")


def run(python: str, *arguments: str) -> None:
    """Run a Python with our code, and stop at its failure."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([python, *arguments], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


def say(line: str) -> None:
    """Tell of the progress."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
