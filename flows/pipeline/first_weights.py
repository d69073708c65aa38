"""Weights that a training starts from: files in weights/.

Each is versioned by a .dvc file beside it, or by pretraining/dvc.lock if it was pretrained. The
stages that may start from one depend on the folder, so another file is another model. The .dvc
files and that lock belong to the commit, and so to the snapshot.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.pipeline.ensure_data import commit_to_cache
from flows.pipeline.lock_and_cache import collect_outs, hash_files, read_out
from flows.pipeline.locked_repo import open_locked
from flows.pipeline.pretraining import (
    LOCK,
    PIPELINE,
    SETTINGS,
    read_pretraining,
    require_pretrained,
    select_weights,
)
from flows.processes.follow import CommandError, follow, ignore
from flows.processes.run_dvc import DVC
from flows.processes.run_git import list_entries, read_file_at
from flows.processes.words import Say, hash_md5
from mammo.base.errors import UserError
from mammo.base.settings import WEIGHTS

_GIT = (".gitignore", ".gitkeep")


@contextmanager
def copy_records(root: Path, commit: str) -> Iterator[Path]:
    """A temporary folder with the files by which a commit names its first weights.

    Those are the .dvc files, and settings and lock of a pretraining.
    """
    names = list_entries(root, "ls-tree", "-z", "-r", "--name-only", commit)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name in (LOCK, SETTINGS) or name.endswith(".dvc"):
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(read_file_at(root, commit, name))
        yield Path(folder)


def read_tracked_weights(root: Path) -> dict[str, str]:
    """The weights of a project: path and DVC's hash of each file that DVC tracks.

    Raises:
        UserError: if a .dvc file is not what `dvc add` of a single file writes, or
            pretraining/dvc.lock is not what DVC writes.
    """
    found = select_weights(read_pretraining(root))
    for file in sorted((root / WEIGHTS).glob("*.dvc")):
        path, md5 = read_out(file.read_text(errors="replace"), f"{WEIGHTS}/{file.name}")
        if f"{path}.dvc" != file.name or md5.endswith(".dir"):
            raise UserError(
                f"{WEIGHTS}/{file.name}: it must name the file {file.stem}: `dvc add` each file"
            )
        found[f"{WEIGHTS}/{path}"] = md5
    return found


def hash_weights(root: Path) -> str:
    """DVC's hash of weights/ as a dep, if every file is what its .dvc file names.

    Args:
        root: a project, with or without the files that DVC tracks.
    """
    hashes = read_tracked_weights(root)
    for path in (root / WEIGHTS).rglob("*"):
        if path.is_file() and (name := path.relative_to(root).as_posix()) not in hashes:
            hashes[name] = hash_md5(path)
    return hash_files({name.removeprefix(f"{WEIGHTS}/"): md5 for name, md5 in hashes.items()})


def has_dvc_file(root: Path, path: str) -> bool:
    """Whether weights have a .dvc file of their own: those of a pretraining have none."""
    return (root / f"{path}.dvc").is_file()


def ensure_weights(root: Path, say: Say) -> None:
    """Make sure that `root`/weights, and DVC's cache, hold what the .dvc files of weights/ name.

    Raises:
        UserError: if a file has no .dvc file, differs from what that names, or cannot be obtained;
            or as `require_pretrained`.
    """
    require_pretrained(root)
    names = read_tracked_weights(root)
    made = collect_outs(read_pretraining(root))  # with their cards, which git has
    for file in sorted((root / WEIGHTS).rglob("*")):
        name = file.relative_to(root).as_posix()
        known = name in names or name in made or file.suffix == ".dvc" or file.name in _GIT
        if file.is_file() and not known:
            raise UserError(f"{name} is not versioned: `dvc add {name}`, or remove it")
    if not names:
        return
    absent = [path for path in names if not (root / path).exists()]
    if absent:
        say(f"{', '.join(absent)} absent: trying `dvc pull`")
        # By the .dvc file where there is one: DVC fetches a file by its own name, and may leave it
        # in the cache.
        targets = [f"{path}.dvc" if has_dvc_file(root, path) else path for path in absent]
        dvc = [*DVC, "--wait-for-lock", "pull", *targets]
        try:
            follow(dvc, root, ignore)
        except CommandError as error:
            raise UserError(
                f"{absent[0]}: cannot be obtained ({error}); where it is, run `dvc push "
                f"{absent[0]}`"
            ) from None
    lacking = []
    with open_locked(root) as repo:
        for path in names:
            [out] = repo.find_outs_by_path(str(root / path))
            if out.changed_checksum():
                way = f"run `dvc add {path}` to version it, or `dvc checkout {path}` to go back"
                if path in made:
                    way = f"run `dvc checkout {path}` to go back"
                owner = LOCK if path in made else f"{path}.dvc"
                raise UserError(f"{path} is not what {owner} names: {way}")
            if out.changed_cache():
                if path in made:
                    raise UserError(
                        f"{path} is not in DVC's cache: `dvc repro {PIPELINE}` makes it again"
                    )
                lacking.append(f"{path}.dvc")
    if lacking:
        commit_to_cache(root, lacking, say)
