"""The snapshot: what defines a model.

The git commit of the code (dvc.yaml included) and the text of params.yaml, plan.yaml, data.dvc and
dvc.lock. No model comes of the plan: it says under what a version was judged.
A registered version carries its snapshot's digest, and git the tag `model/v<N>`: a commit whose
tree holds exactly the snapshot, so that checking it out and running `dvc repro` is all it takes.
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dvc.config import Config
from dvc.repo import Repo
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from flows.processes.checked import Commit, describe_faults
from flows.processes.folder_lock import hold_lock
from flows.processes.run_dvc import SETTINGS
from flows.processes.run_git import git, has_ref, list_entries, list_paths, read_file_at, succeeds
from flows.processes.words import shorten_list
from mammo.assurance.plan import PLAN_FILE
from mammo.base.atomic_files import write_text
from mammo.base.errors import UserError

PARAMS_FILE, DATA_FILE, LOCK_FILE = "params.yaml", "data.dvc", "dvc.lock"
FILES = (PARAMS_FILE, PLAN_FILE, DATA_FILE, LOCK_FILE)
CODE = (
    *("mammo", "stages", "flows", "weights", "pretraining"),
    *("dvc.yaml", "pyproject.toml", "requirements.lock", ".dvc"),
)


@dataclass(frozen=True)
class Snapshot:
    """A commit and the text of each of FILES; a file that did not exist has no entry."""

    commit: str
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256, as hex, over the canonical form."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The canonical form: sorted keys, no spaces."""
        content = {"commit": self.commit, "files": dict(self.files)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str, what: str = "the text") -> "Snapshot":
        """The inverse of `to_json`.

        Args:
            text: from any source; all of it is checked.
            what: its name in a message, with its owner.

        Raises:
            UserError: if it is no snapshot: another key, another file, or no id of a commit.
        """
        try:
            stored = _Stored.model_validate_json(text)
        except ValidationError as error:
            raise UserError(f"{what} is no snapshot: {describe_faults(error)}") from None
        return Snapshot(stored.commit, stored.files)


def _require_known(name: str) -> str:
    if name not in FILES:
        raise ValueError(f"is none of {', '.join(FILES)}")
    return name


class _Stored(BaseModel):
    """A snapshot as JSON may have it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    commit: Commit
    files: dict[Annotated[str, AfterValidator(_require_known)], str]


def find_uncommitted_code(root: Path) -> list[str]:
    """Files of CODE that differ from the commit that is checked out, new files included.

    Only the folder and the commit's own .gitignore count. A person's index could hide a file
    (`git update-index --assume-unchanged`), and so could their private ignore lists and the
    filters of .git/info/attributes.
    """
    with open_index(root, "HEAD") as index:
        new = ("ls-files", "-z", "--others", "--exclude-per-directory=.gitignore", "--", *CODE)
        changed = [*find_changed_files(root, index, *CODE), *find_filtered_files(root, "HEAD")]
        return [*dict.fromkeys(changed), *list_entries(root, *new, env=index)]


def find_filtered_files(folder: Path, commit: str) -> list[str]:
    """Files of CODE whose bytes in a folder are not the commit's, whatever git's filters say."""
    entries = list_entries(folder, "ls-tree", "-r", "-z", "--full-tree", commit, "--", *CODE)
    ids = {
        path: made.split()[2]
        for made, path in (entry.split("\t", 1) for entry in entries)
        if made.startswith("100") and (folder / path).is_file()
    }
    found = git(folder, "hash-object", "--no-filters", "--stdin-paths", stdin="\n".join(ids))
    pairs = zip(ids.items(), found.splitlines(), strict=True)
    return [path for (path, wanted), had in pairs if had != wanted]


def find_changed_files(root: Path, index: Mapping[str, str], *paths: str) -> list[str]:
    """Files of HEAD that the folder lacks or has with another content.

    Args:
        root: the clone.
        index: of HEAD, by `open_index`.
        paths: only under these, if any are given.
    """
    git(root, "update-index", "-q", "--refresh", env=index)
    command = ("diff-index", "-z", "--name-only", "--no-renames", "HEAD", "--", *paths)
    return list_entries(root, *command, env=index)


def capture(root: Path) -> Snapshot:
    """The snapshot of a working tree.

    Raises:
        UserError: as `require_committed`.
    """
    require_committed(root)
    files = {name: (root / name).read_bytes().decode() for name in FILES if (root / name).exists()}
    return Snapshot(git(root, "rev-parse", "--verify", "HEAD"), files)


def require_committed(root: Path) -> None:
    """Make sure that the code is that of the commit checked out.

    Raises:
        UserError: if there is no commit, or code differs from the commit: a model made from code
            that nobody can find again proves nothing.
    """
    changed = find_uncommitted_code(root)
    if changed:
        raise UserError(
            f"the code is not committed: {shorten_list(changed)}; commit or stash it (weights: "
            "`dvc add` each file first), then run this again"
        )


def tag_exists(root: Path, tag: str) -> bool:
    """Whether git has this tag."""
    return has_ref(root, f"refs/tags/{tag}")


def write_tag(root: Path, snapshot: Snapshot, tag: str, message: str) -> str:
    """Tag a new commit on top of the snapshot's whose tree holds the snapshot; return its id.

    Neither the working tree, nor the index, nor any branch changes.

    Raises:
        UserError: if the tag exists.
    """
    _require_form(snapshot)
    with open_index(root, snapshot.commit) as index:
        for name, text in sorted(snapshot.files.items()):
            add_to_index(root, index, name, text)
        if absent := [name for name in FILES if name not in snapshot.files]:
            git(root, "update-index", "--force-remove", "--", *absent, env=index)
        commit = commit_index(root, index, message, snapshot.commit)
    git(root, "tag", tag, commit)
    return commit


def read_tag(root: Path, tag: str) -> Snapshot:
    """The snapshot that `write_tag` stored under a tag: the inverse of it.

    Raises:
        UserError: if there is no such tag.
    """
    commit = git(root, "rev-parse", "--verify", f"refs/tags/{tag}^")
    return Snapshot(commit, _read_files_at(root, f"refs/tags/{tag}"))


def read_commit(root: Path, commit: str) -> Snapshot:
    """The snapshot of a commit with its own files, whatever the working tree holds.

    Raises:
        UserError: if there is no such commit.
    """
    return Snapshot(
        git(root, "rev-parse", "--verify", f"{commit}^{{commit}}"), _read_files_at(root, commit)
    )


@contextlib.contextmanager
def materialise(root: Path, snapshot: Snapshot) -> Iterator[Path]:
    """A clean directory that holds exactly the snapshot; it is removed afterwards.

    It is a git worktree under .dvc/tmp, where DVC keeps worktrees of its own: on the cache's disk,
    and ignored by `root`'s git. It shares the cache and the remotes of `root`, whose working tree,
    index and branches do not change.

    Raises:
        UserError: with git's own words, if the commit is not there; or if a filter of git changes
            code on its way.
    """
    _require_form(snapshot)
    with hold_lock(make_snapshots_folder(root), fcntl.LOCK_SH):
        yield from _check_out(root, snapshot)


def _check_out(root: Path, snapshot: Snapshot) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=make_snapshots_folder(root)))
    try:
        git(root, "worktree", "add", "--quiet", "--detach", str(folder), snapshot.commit)
        if filtered := find_filtered_files(folder, snapshot.commit):
            raise UserError(
                f"git checks out {filtered[0]} with other bytes than the commit holds: a line of "
                f".git/info/attributes or of .gitattributes changes it; remove that line"
            )
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for name, text in snapshot.files.items():
            write_text(folder / name, text)
        _share_cache(root, folder)
        yield folder
    finally:
        # DVC leaves folders of its own in it, which `git worktree remove` would not touch.
        shutil.rmtree(folder, ignore_errors=True)
        git(root, "worktree", "prune")


def make_snapshots_folder(root: Path) -> Path:
    """The folder that snapshots are materialised in."""
    home = root / ".dvc" / "tmp" / "snapshots"
    home.mkdir(parents=True, exist_ok=True)
    return home


@contextlib.contextmanager
def lock_snapshots(root: Path) -> Iterator[None]:
    """Keep other processes from materialising a snapshot.

    What is left in the folder of snapshots then belongs to processes that have ended.

    Raises:
        UserError: if a process uses a snapshot now.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                hold_lock(make_snapshots_folder(root), fcntl.LOCK_EX | fcntl.LOCK_NB)
            )
        except BlockingIOError:
            raise UserError(
                f"somebody is at work with a snapshot in {make_snapshots_folder(root)} (an audit, "
                f"the gate or a worker's stage): wait until it has ended, then run this again"
            ) from None
        yield


def _require_form(snapshot: Snapshot) -> None:
    """Check a snapshot again before files are written: not every one comes from `from_json`."""
    Snapshot.from_json(snapshot.to_json(), "what is to be written")


def _share_cache(root: Path, folder: Path) -> None:
    """Point the DVC project in `folder` to the cache and the remotes of the one in `root`.

    Written out in full: relative paths of the configuration start from where it lies.
    """
    with Repo(str(root)) as repo:
        cache, remotes = repo.cache.local.path, repo.config.get("remote", {})
        store = Path(cache).parents[1]  # without files/md5
        core = {key: x for key, x in repo.config["core"].items() if key == "remote"}
    # DVC keeps an index for each folder that it was ever in, in /var/tmp: this one goes with it.
    core |= {**SETTINGS["core"], "site_cache_dir": str(folder / ".dvc" / "tmp" / "site")}
    if (folder / ".dvc").is_symlink():
        raise UserError(f"the commit has a link for .dvc: {folder} would share another's settings")
    (folder / ".dvc" / Config.CONFIG_LOCAL).unlink(missing_ok=True)  # it may be a link
    config = Config(str(folder / ".dvc"), validate=False)
    with config.edit("local") as local:
        local["cache"] = {"dir": str(store)}
        local["remote"] = {name: dict(remote) for name, remote in remotes.items()}
        local["core"] = core


@contextlib.contextmanager
def open_index(root: Path, commit: str | None) -> Iterator[dict[str, str]]:
    """A temporary index of a commit, or of none; yields the variables that make git use it."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(root, "read-tree", commit or "--empty", env=index)
        yield index


def add_to_index(root: Path, index: Mapping[str, str], name: str, text: str) -> None:
    """Add a file to a temporary index, or replace it there; the folder stays as it is.

    Args:
        root: the clone.
        index: by `open_index`.
        name: of the file.
        text: all that it holds.
    """
    blob = git(root, "hash-object", "-w", "--stdin", stdin=text)
    git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=index)


def commit_index(root: Path, index: Mapping[str, str], message: str, *parents: str) -> str:
    """Make a commit of what a temporary index holds, and return its id; no branch moves.

    Args:
        root: the clone.
        index: by `open_index`.
        message: of the commit.
        parents: of the commit, in order.
    """
    tree = git(root, "write-tree", env=index)
    named = [part for parent in parents for part in ("-p", parent)]
    identity = _identify_committer(root)
    return git(root, "commit-tree", tree, *named, stdin=f"{message}\n", env=identity)


def _read_files_at(root: Path, revision: str) -> dict[str, str]:
    return {name: read_file_at(root, revision, name) for name in list_paths(root, revision, *FILES)}


def _identify_committer(root: Path) -> dict[str, str]:
    """Who commits: git's configured identity, or Mammoflow where there is none (a bare machine)."""
    if all(succeeds(root, "var", f"GIT_{role}_IDENT") for role in ("AUTHOR", "COMMITTER")):
        return {}
    name, email = "Mammoflow", "mammoflow@localhost"
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }
