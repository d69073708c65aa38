"""Getting the data that data.dvc names."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo
from dvc.schema import COMPILED_SINGLE_STAGE_SCHEMA
from voluptuous import Invalid

from flows.pipeline.locked_repo import open_locked
from flows.processes.follow import CommandError, follow, ignore
from flows.processes.run_dvc import DVC
from flows.processes.words import Say
from flows.snapshots.snapshot import DATA_FILE
from mammo.base.errors import UserError

DATA = "data"

_DIFFERENT = (
    f"{DATA}/ is not what {DATA_FILE} names: run `dvc add {DATA}` to version the new data, or "
    f"`dvc checkout {DATA_FILE}` to go back"
)


def ensure_data(root: Path, say: Say) -> None:
    """Make sure that `root`/data holds what data.dvc names; if absent, pull it or make the sample.

    Afterwards DVC's cache holds it too, so that a snapshot's data can be found again.

    Raises:
        UserError: if data.dvc does not name data/ alone; if data/ differs from it; or if data/ is
            absent and can be neither pulled nor made.
    """
    read_data_file(root)
    made, failure = False, None
    if not (root / DATA).exists():
        failure = _pull(root, say)
    if failure is not None:
        from mammo.datasets.phantom.draw import write_phantoms

        say(f"`dvc pull` did not bring it ({failure}): making the sample of phantoms")
        write_phantoms(root / DATA)
        made = True
    same, cached = _compare(root)
    if same and not cached:
        commit_to_cache(root, [DATA_FILE], say)
    elif not same and made:
        shutil.rmtree(root / DATA)
        raise UserError(
            f"the data that {DATA_FILE} names cannot be obtained: it is not in the cache, it is "
            f"not the sample, and `dvc pull` ended with: {failure}. Mend that, or set a remote "
            f"with `dvc remote add -d NAME URL`, or put the data into {DATA}/"
        )
    elif not same:
        raise UserError(_DIFFERENT)


def require_same_data(root: Path) -> None:
    """Make sure that `root`/data, if it is there, holds what data.dvc names; nothing is changed.

    DVC looks at the size and the time of each file, and reads only those that it has not seen as
    they are: 0.1 s of processor time for the sample's 120 images, a few seconds for 54,706.

    Raises:
        UserError: as `ensure_data`, if data.dvc does not name data/ alone, or data/ differs.
    """
    read_data_file(root)
    if (root / DATA).exists():
        with Repo(str(root)) as repo:
            out = _find_out(repo, root)
            out.use_cache = False  # or DVC would put the list of the files there into its cache
            if out.changed_checksum():
                raise UserError(_DIFFERENT)


def commit_to_cache(root: Path, files: Sequence[str], say: Say) -> None:
    """Put the files of this folder that .dvc files name into DVC's cache.

    Raises:
        UserError: with DVC's last lines if it fails.
    """
    names = ", ".join(file.removesuffix(".dvc") for file in files)
    say(f"putting {names} into DVC's cache")
    try:
        follow([*DVC, "--wait-for-lock", "commit", "--force", *files], root, ignore)
    except CommandError as error:
        raise UserError(f"{names} cannot be put into DVC's cache: {error}") from None


def read_data_file(root: Path) -> dict[str, Any]:
    """What data.dvc says: DVC's own fields, of one out, which is data/.

    Raises:
        UserError: if there is none, if it cannot be read, or if it names anything else.
    """
    path = root / DATA_FILE
    if not path.exists():
        if any((root / DATA).rglob("*.dvc")):
            raise UserError(
                f"{DATA_FILE} is missing, and .dvc files inside {DATA}/ version parts of it: "
                f"`dvc remove` each of them, then version the whole with `dvc add {DATA}`"
            )
        raise UserError(f"{DATA_FILE} is missing: version your data with `dvc add {DATA}`")
    try:
        said = COMPILED_SINGLE_STAGE_SCHEMA(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError, Invalid) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{DATA_FILE} cannot be read ({first}): `git checkout {DATA_FILE}` brings back the "
            f"commit's, `dvc add {DATA}` makes it anew"
        ) from None
    outs = [str(out.get("path", "nothing")) for out in said.get("outs", [])]
    if outs != [DATA] or said.get("wdir", ".") != ".":
        raise UserError(
            f"{DATA_FILE} names {', '.join(outs) or 'nothing'}, and not {DATA}/ alone: "
            f"`dvc remove {DATA_FILE}`, then version the folder with `dvc add {DATA}`"
        )
    return dict(said)


def check_own(root: Path) -> None:
    """Make sure that this project may add to data/: its data.dvc versions it, and would push it.

    Raises:
        UserError: if data/ comes from another repository, or would not be pushed.
    """
    said = read_data_file(root)
    [out] = said["outs"]
    own = f"`dvc remove {DATA_FILE} && dvc add {DATA}`"
    if deps := said.get("deps"):
        raise UserError(
            f"{DATA}/ comes from {_describe_source(deps[0])}, as {DATA_FILE} says: what is added "
            f"would not be pushed, and the next `dvc update` would drop it. Add the exams there, "
            f"or make the data this project's own with {own}"
        )
    for setting in ("cache", "push"):
        if out.get(setting) is False:
            raise UserError(
                f"{DATA_FILE} says `{setting}: false`, so what is added would never be pushed: "
                f"take that line out of {DATA_FILE}"
            )
    if (root / DATA).is_symlink():
        raise UserError(
            f"{DATA} is a symbolic link to {(root / DATA).resolve()}: put the folder itself there; "
            f"DVC can keep the space with `dvc config cache.type hardlink,symlink`"
        )


def _describe_source(dep: dict[str, Any]) -> str:
    """Where the data come from, without a password that an address may hold."""
    path = str(dep.get("path", ""))
    if "repo" in dep:
        source = f"{path} of {dep['repo'].get('url')} (`dvc import`)"
    else:
        source = f"{path} (`dvc import-url`)"
    return re.sub(r"//[^/@\s]*@", "//", source)


def _compare(root: Path) -> tuple[bool, bool]:
    """Whether data/ has the hash that data.dvc names, and whether the cache holds it.

    `dvc status` does not say: where the cache lacks the data, it does not compare them.
    """
    with open_locked(root) as repo:
        out = _find_out(repo, root)
        return not out.changed_checksum(), not out.changed_cache()


def _find_out(repo: Repo, root: Path) -> Any:
    """The out of data.dvc, whatever dvc.yaml and dvc.lock say."""
    [out] = repo.stage.load_one(str(root / DATA_FILE)).outs
    return out


def _pull(root: Path, say: Say) -> str | None:
    """Let `dvc pull` bring the data, from the cache or a remote; return why it did not."""
    say(f"{DATA}/ is absent: trying `dvc pull`")
    lines: list[str] = []
    try:
        follow([*DVC, "--wait-for-lock", "pull", DATA_FILE], root, lines.append)
    except CommandError:
        # DVC leaves an empty folder behind when it finds nothing to put into it.
        shutil.rmtree(root / DATA, ignore_errors=True)
        return _find_reason(lines)
    return None if (root / DATA).exists() else _find_reason(lines)


def _find_reason(lines: list[str]) -> str:
    """What DVC complains of, but for names of files in data/, which may be anything."""
    marks = ("ERROR: ", "WARNING: ", "No remote provided")
    reasons = [line for line in lines if line.startswith(marks)] or lines[-1:]
    words = (re.sub(rf"\b{DATA}/.*", f"{DATA}/...", line).rstrip(" .:") for line in reasons)
    return "; ".join(words) or "no reason was given"
