"""Publishes what other clones need of a version, and fetches it in such a clone.

    mammoflow publish 3

What they need is the git tag `model/v3` with its commits, on a remote of git; and the data, the
first weights and every out that the tag's dvc.lock names, on DVC's default remote. A version is
published when it is registered, and fetched when it is audited. After the push, both remotes are
asked whether they have all of it. The version's tag `published` says where it is available, or why
it is not; the next retrain tries again what failed.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dvc.repo import Repo
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.pipeline.first_weights import read_tracked_weights
from flows.pipeline.lock_and_cache import (
    collect_outs,
    is_import,
    name_default_remote,
    open_cache,
    read_data_out,
    read_lock,
)
from flows.pipeline.pretraining import read_pretraining_objects
from flows.processes.checked import escape_control_characters
from flows.processes.follow import CommandError, follow, ignore
from flows.processes.run_dvc import DVC
from flows.processes.run_git import (
    NoAnswerError,
    fetch,
    git,
    list_remotes,
    read_remote_refs,
    succeeds,
)
from flows.processes.words import Say, hide_password, put_in_one_line
from flows.publishing.push_objects import PushResult
from flows.snapshots.snapshot import Snapshot, materialise, read_tag, tag_exists
from flows.tracking.names import MODEL, name_tag
from flows.tracking.register import COMPLETION_TAG
from flows.tracking.registry import list_versions
from mammo.base.atomic_files import read_json, write_json
from mammo.base.errors import UserError

PUBLISHED = "published"
"""The tag of a version that says where it is available: `yes: ...` or `no: ...`."""

NO_OBJECT = "0" * 32
"""A hash that no object has: asking for it shows whether a remote answers."""

_YES, _NO = "yes: ", "no: "
_LONGEST = 2000  # characters of a sentence in the tag


@dataclass(frozen=True)
class Publication:
    """Whether a version is available to other clones, and where, or why not, as a sentence."""

    version: int
    complete: bool
    sentence: str


def publish(root: Path, version: int, say: Say) -> Publication:
    """Push what other clones need of a version, check that it arrived, and record the result.

    Args:
        root: a clone with the version's git tag and, in DVC's cache, what the remote lacks.
        version: its number.
        say: reports the progress.

    Raises:
        MlflowException: if MLflow does not answer.
    """
    try:
        where = " and ".join(_push(root, version, say))
        found = Publication(version, True, f"{where}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    except (UserError, CommandError) as error:
        found = Publication(version, False, put_in_one_line(error))
    text = (_YES if found.complete else _NO) + escape_control_characters(found.sentence)
    MlflowClient().set_model_version_tag(MODEL, str(version), PUBLISHED, text[:_LONGEST])
    return found


def publish_pending(root: Path, say: Say) -> list[Publication]:
    """Publish the versions whose publication failed before; stop at the first that fails again.

    Only versions whose git tag this clone has: it cannot publish those of other clones.
    """
    if choose_git_remote(root) is None or name_default_remote(root) is None:
        return []  # they would fail as before, and each version's tag says so
    done: list[Publication] = []
    for version in reversed(list_versions()):
        pending = version.tags.get(PUBLISHED, "").startswith(_NO) and COMPLETION_TAG in version.tags
        if not pending or not tag_exists(root, name_tag(int(version.version))):
            continue
        done.append(publish(root, int(version.version), say))
        if not done[-1].complete:
            break
    return done


def describe_publication(found: Publication) -> str:
    """One line that says whether a version is published, and where or why not."""
    fate = "published" if found.complete else "not published"
    return f"version {found.version} is {fate}: {found.sentence}"


def read_publication(version: ModelVersion) -> str:
    """Where a version is available, as the registry says."""
    return str(version.tags.get(PUBLISHED, "it was never published"))


def choose_git_remote(root: Path) -> str | None:
    """The remote that the branch goes to, else `origin`, else the first one; None if there is none.

    Args:
        root: the clone.
    """
    names = list_remotes(root)
    if not names:
        return None
    if succeeds(root, "symbolic-ref", "--quiet", "HEAD"):
        branch = git(root, "symbolic-ref", "--short", "HEAD")
        own = git(root, "config", "--default", "", "--get", f"branch.{branch}.remote")
        if own in names:
            return own
    return "origin" if "origin" in names else names[0]


def fetch_tag(root: Path, version: int) -> str | None:
    """Fetch a version's git tag if the clone lacks it; return why that failed, or None.

    Raises:
        NoAnswerError: if a remote does not answer, and no other has it: nobody can tell then.
    """
    tag = name_tag(version)
    failed, silent = "", None
    for remote in [] if tag_exists(root, tag) else list_remotes(root):
        try:
            fetch(root, remote, f"refs/tags/{tag}:refs/tags/{tag}")
            break
        except NoAnswerError as error:
            silent = error
        except UserError as error:
            failed = f" ({put_in_one_line(error)})"
    if tag_exists(root, tag):
        return None
    if silent is not None:
        raise silent
    return (
        f"neither this clone nor a remote of it has the git tag {tag}{failed}: run `mammoflow "
        f"publish {version}` in the clone that registered it, then this again"
    )


def fetch_objects(folder: Path, targets: Iterable[str], say: Say) -> str:
    """Fetch what DVC's cache lacks of a snapshot; the caller reports what stays missing.

    Args:
        folder: the snapshot, materialised.
        targets: outs, or .dvc files; all of the snapshot's if there are none.
        say: reports the progress.

    Returns:
        Why the remote cannot be used; empty if it can, or if there is none.
    """
    remote = name_default_remote(folder)
    if remote is None:
        return ""
    names = list(targets)
    say(f"fetching {', '.join(names) or 'what the cache lacks'} from DVC's remote")
    try:
        follow([*DVC, "fetch", "--", *names], folder, ignore)
    except CommandError as error:
        # DVC's message is the same for a missing file and for a remote that it cannot reach.
        fault = _push_and_check(folder, [NO_OBJECT]).fault
        if fault:
            unusable = f"DVC's remote {remote} cannot be used from this clone: {fault}"
            say(unusable)
            return unusable
        say(f"the remote did not have all of it: {error}")
    return ""


def _push(root: Path, version: int, say: Say) -> Iterator[str]:
    """Push a version's git tag and its objects; yield for each where it is then.

    Raises:
        UserError: if it cannot be pushed; the sentence says what to do.
        CommandError: with DVC's last lines.
    """
    tag = name_tag(version)
    advice = f"then `mammoflow publish {version}`"
    remote, store = choose_git_remote(root), name_default_remote(root)
    lacking = [
        text
        for text, there in (
            ("git has no remote: `git remote add origin URL`", remote),
            ("DVC has no default remote: `dvc remote add -d NAME URL`", store),
        )
        if there is None
    ]
    if lacking:
        raise UserError(f"it can only be audited in this clone ({'; '.join(lacking)}; {advice})")
    assert remote is not None
    if not tag_exists(root, tag):
        raise UserError(f"this clone has no git tag {tag}: publish it from the one that has it")
    say(f"publishing {tag}: to {remote}")
    yield _push_tag(root, remote, tag)
    say(f"publishing {tag}: its data and outs to DVC's remote {store}")
    _push_objects(root, read_tag(root, tag), f"the remote {store}")
    where = _describe_address(_read_store_url(root, str(store)))
    yield f"data and outs on DVC's remote {store}{where}"


def _push_tag(root: Path, remote: str, tag: str) -> str:
    """Push a tag if the remote lacks it; return where it is.

    Raises:
        UserError: if the remote has another tag of this name, or does not accept it.
    """
    name = f"refs/tags/{tag}"
    own = git(root, "rev-parse", name)

    def read_remote_tag() -> str:
        return read_remote_refs(root, remote, name).get(name, "")

    if not (found := read_remote_tag()):
        git(root, "push", "--quiet", remote, f"{name}:{name}")
        found = read_remote_tag()
    if found != own:
        raise UserError(
            f"{remote} has another {tag}, of another registry: use that registry "
            f"(MLFLOW_TRACKING_URI), or register under another name (MAMMOFLOW_MODEL)"
        )
    return f"git tag {tag} on {remote}{_describe_address(git(root, 'remote', 'get-url', remote))}"


def _push_objects(root: Path, snapshot: Snapshot, remote: str) -> None:
    """Push all that a snapshot's data.dvc, weights and locks name, and check that it arrived.

    Raises:
        UserError: with what the remote lacks or did not accept, or why it cannot be used.
        CommandError: with the last lines of the process that pushes, if it fails.
    """
    with materialise(root, snapshot) as folder:
        outs = collect_outs(read_lock(snapshot))
        outs |= read_tracked_weights(folder)
        # These may only be on the remote: a clone that retrains takes the weights alone. DVC pushes
        # a folder's list after its files, so where the list is, they are.
        before = read_pretraining_objects(folder)
        if not is_import(snapshot):  # imported data have a source of their own
            outs |= [read_data_out(snapshot)]
    cache = open_cache(root)
    owners = {
        md5: out for out, top in {**before, **outs}.items() for _, md5 in cache.objects(out, top)
    }
    unlisted = [
        out for out, md5 in outs.items() if md5.endswith(".dir") and cache.state(md5) != "good"
    ]
    if unlisted:
        raise UserError(
            f"this clone's DVC cache lacks {', '.join(sorted(unlisted))}: publish it from the clone"
            f" that registered it"
        )
    answer = _push_and_check(root, sorted(owners))
    if answer.lacking:
        raise UserError(
            f"{remote} lacks {_describe_files(answer.lacking, owners)}, and so does this cache"
        )
    if answer.refused:
        reason = answer.fault or "it gives no reason"
        raise UserError(
            f"{remote} did not take {_describe_files(answer.refused, owners)}: {reason}"
        )
    if answer.fault:
        raise UserError(f"{remote} cannot be used from this clone: {answer.fault}")


def _push_and_check(root: Path, hashes: Sequence[str]) -> PushResult:
    """Push objects and check that they arrived, in a child process.

    Raises:
        CommandError: if the child process is killed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        names, answer = Path(scratch) / "hashes.json", Path(scratch) / "answer.json"
        write_json(names, hashes)
        # With our own code: the folder may be another commit's, with a module of this name.
        command = [
            sys.executable,
            "-P",
            "-m",
            "flows.publishing.push_objects",
            str(names),
            str(answer),
        ]
        path_of_ours = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        follow(command, root, ignore, {"PYTHONPATH": path_of_ours})
        return PushResult(**read_json(answer))


def _describe_files(hashes: Sequence[str], owners: Mapping[str, str]) -> str:
    names = ", ".join(sorted({owners[md5] for md5 in hashes}))
    return f"{len(hashes)} files of {names}"


def _read_store_url(root: Path, name: str) -> str:
    with Repo(str(root)) as repo:
        return str(repo.config["remote"][name]["url"])


def _describe_address(url: str) -> str:
    """An address that others may read, without a password; empty for a path of this machine."""
    if not re.match(r"[\w+.-]+://|[\w.-]+@?[\w.-]*:(?!/?/)", url) or url.startswith("file:"):
        return ""
    return f" ({hide_password(url)})"
