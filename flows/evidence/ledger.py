"""The ledger: one line for each attestation of the model, each naming the line before it.

The lines of a version lie in MLflow, as `attestations/vN.intoto.jsonl` of its run. All lines lie on
the branch `evidence/MODEL` of git, in files of the same names; it is published with the versions.
It is a branch and no file of the tag `model/vN`: that tag's tree is exactly the snapshot, and never
changes, while verdicts and promotions come later. And a branch only grows: git refuses to push it
otherwise.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from securesystemslib.dsse import Envelope

from flows.evidence.keys import Owner
from flows.evidence.verify import (
    DECISION,
    DECISIONS,
    PAYLOAD_TYPE,
    POSITION,
    ROLES,
    STATEMENT,
    Line,
    hash_bytes,
    read_line,
    select_lines,
    split_lines,
    write_canonical,
)
from flows.processes.folder_lock import hold_in_clone
from flows.processes.run_git import (
    fetch,
    git,
    has_ref,
    is_ancestor,
    list_entries,
    list_remotes,
    read_remote_refs,
)
from flows.processes.words import put_in_one_line
from flows.publishing.publish import choose_git_remote
from flows.snapshots.snapshot import add_to_index, commit_index, open_index
from flows.tracking.names import MODEL
from flows.tracking.registry import (
    find,
    is_absent,
    list_versions,
    read_artifact,
    read_model_tags,
    read_run_id,
)
from mammo.base.errors import UserError

BRANCH = f"evidence/{MODEL}"
"""The branch of git that has every line."""

POLICIES = "policies.intoto.jsonl"
"""The file of the branch with the lines that belong to no version."""

HEAD = "evidence_head"
"""The tag of the registered model with number and digest of the ledger's last line."""


_BATCH_HEADER = re.compile(r"[0-9a-f]{40,64} blob \d+")


def name_file(version: int) -> str:
    """A version's own lines, among the artifacts of its run, and in an export."""
    return f"attestations/v{version}.intoto.jsonl"


def read_ledger(root: Path) -> list[str]:
    """Every line that the registry or git has, in the ledger's order; none is verified.

    Text that is no line comes last. A line counts if one copy has it, a registered version's or a
    branch's. The branch is fetched if this clone lacks it, or the last line.
    """
    head = read_head()
    if not has_ref(root, f"refs/heads/{BRANCH}") or not _contain(_read_branches(root), head):
        _fetch(root)
    raws = _read_branches(root)
    for version in list_versions():
        raws += split_lines(
            read_artifact(read_run_id(version), name_file(int(version.version))) or ""
        )
    return _sort_lines(raws)


def read_head() -> tuple[int, str] | None:
    """Number and digest of the last line, as the registry names them; None if it names none.

    Raises:
        UserError: if the tag was changed into other text.
    """
    text = (read_model_tags(MODEL) or {}).get(HEAD)
    if text is None:
        return None
    number, _, digest = text.partition(" ")
    if not number.isdecimal() or len(digest) != 64:
        raise UserError(f"the tag {HEAD} of {MODEL} in MLflow is {text!r}: somebody changed it")
    return int(number), digest


def add(
    root: Path,
    owner: Owner,
    kind: str,
    subject: Mapping[str, str],
    predicate: Mapping[str, Any],
    *,
    version: int | None,
    policy: str | None = None,
    **more: str,
) -> Line:
    """Sign a statement and add it to the ledger.

    Args:
        root: the clone.
        owner: whose key signs.
        kind: a key of `ROLES`.
        subject: names, and their SHA-256.
        predicate: what is said of the subject.
        version: whose line it is; None for a policy.
        policy: the digest of the line with the policy that was in force.
        more: further fields of the line's position.

    Raises:
        UserError: if git does not take the line.
    """
    with hold_in_clone(root, "evidence"):
        lines = read_lines_for_adding(root)
        last = max(lines, key=lambda line: line.number, default=None)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        position = {
            "model": MODEL,
            "line": last.number + 1 if last is not None else 1,
            "previous": last.digest if last is not None else None,
            # Another machine's clock may be ahead by seconds.
            "date": max(now, last.date) if last is not None else now,
            "version": version,
            "policy": policy,
            **more,
        }
        line = read_line(seal(owner, kind, subject, {**predicate, POSITION: position}))
        _commit(root, [*lines, line], line.name)
        _keep(line, [*lines, line])
    return line


def seal(owner: Owner, kind: str, subject: Mapping[str, str], predicate: Mapping[str, Any]) -> str:
    """A statement in a DSSE envelope, as one line. The same statement and key give the same bytes.

    Args:
        owner: whose key signs.
        kind: a key of `ROLES`, which the key's role must allow.
        subject: names, and their SHA-256.
        predicate: what is said of the subject.
    """
    assert owner.key.role in ROLES[kind]
    decision = kind in DECISIONS
    statement = {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subject.items())
        ],
        "predicateType": DECISION if decision else kind,
        "predicate": {**predicate, "kind": kind} if decision else predicate,
    }
    envelope = Envelope(write_canonical(statement), PAYLOAD_TYPE, {})
    envelope.sign(owner.signer)
    return write_canonical(envelope.to_dict()).decode()


def publish_ledger(root: Path) -> str | None:
    """Push the branch of the ledger, if there is one and git has a remote.

    Returns:
        Why it could not be pushed; None if it is there, or if there is nothing to push.
    """
    remote = choose_git_remote(root)
    if remote is None or not has_ref(root, f"refs/heads/{BRANCH}"):
        return None
    try:
        _fetch(root)
        theirs = f"refs/remotes/{remote}/{BRANCH}"
        ours = f"refs/heads/{BRANCH}"
        if has_ref(root, theirs) and not is_ancestor(root, theirs, ours):
            with hold_in_clone(root, "evidence"):
                lines = _read_all(_read_branches(root))
                _commit(root, lines, "both clones' lines", git(root, "rev-parse", theirs))
        git(root, "push", "--quiet", remote, f"{ours}:{ours}")
    except UserError as error:
        return (
            f"the signed evidence is not on {remote}: {put_in_one_line(error)}; `mammoflow "
            f"publish N` tries again"
        )
    return None


def read_lines_for_adding(root: Path) -> list[Line]:
    """The lines that a new one is added to; the registry is asked if the branch is behind it.

    Raises:
        UserError: if nobody has the line that is the last by the registry: a line after another
            would be one too many for ever.
    """
    raws, head = _read_branches(root), read_head()
    if not _contain(raws, head):
        raws = read_ledger(root)
    if head is not None and not _contain(raws, head):
        raise UserError(
            f"line {head[0]} is the last of the signed evidence, by the tag {HEAD} of {MODEL} in "
            f"MLflow, and neither MLflow nor this clone nor a remote has it: push the branch "
            f"{BRANCH} from the clone that signed it; if it is gone, delete the tag: the gap will "
            f"show"
        )
    return _read_all(raws)


def _contain(raws: Iterable[str], head: tuple[int, str] | None) -> bool:
    return head is None or head[1] in {hash_bytes(raw.encode()) for raw in raws}


def _read_all(raws: Iterable[str]) -> list[Line]:
    """The lines in their order; `mammoflow verify` reports what is none."""
    found = (_read(raw) for raw in _sort_lines(raws))
    return [line for line in found if line is not None]


@functools.cache
def _read(raw: str) -> Line | None:
    try:
        return read_line(raw)
    except ValueError:
        return None


def _sort_lines(raws: Iterable[str]) -> list[str]:
    """Each line once, by its number; what is no line comes last."""

    def position(raw: str) -> tuple[float, str]:
        line = _read(raw)
        return (float("inf"), raw) if line is None else (line.number, line.digest)

    return sorted(dict.fromkeys(raws), key=position)


def _read_branches(root: Path) -> list[str]:
    """The lines of the branch, in this clone and as it was last fetched."""
    refs = [
        f"refs/heads/{BRANCH}",
        *(f"refs/remotes/{name}/{BRANCH}" for name in list_remotes(root)),
    ]
    return [raw for ref in refs for raw in _read_branch(root, ref)]


def _read_branch(root: Path, ref: str) -> list[str]:
    """The lines of all files of a branch; none if there is no such branch."""
    if not has_ref(root, ref):
        return []
    entries = list_entries(root, "ls-tree", "-r", "-z", ref)
    ids = "".join(f"{entry.split()[2]}\n" for entry in entries)
    # One call for all files; each begins with a line that names it and its size.
    said = git(root, "cat-file", "--batch", stdin=ids).split("\n")
    return [raw for raw in said if raw and not _BATCH_HEADER.fullmatch(raw)]


def _fetch(root: Path) -> None:
    """Fetch the branch from each remote that has it."""
    for remote in list_remotes(root):
        try:
            if read_remote_refs(root, remote, f"refs/heads/{BRANCH}"):
                fetch(root, remote, f"+refs/heads/{BRANCH}:refs/remotes/{remote}/{BRANCH}")
        except UserError:
            continue  # it does not answer: the registry has the lines, too


def _commit(root: Path, lines: Sequence[Line], message: str, *parents: str) -> None:
    """Put a commit with the lines that the branch lacks on it; the folder stays as it is.

    Each version has a file of its own there, so that a line more is a small file more in git.
    """
    ref = f"refs/heads/{BRANCH}"
    known = set(_read_branch(root, ref))
    before = git(root, "rev-parse", ref) if has_ref(root, ref) else None
    with open_index(root, before) as index:
        for version in {line.version for line in lines if line.raw not in known}:
            if version is None:
                name, own = POLICIES, [line for line in lines if line.version is None]
            else:
                name, own = name_file(version), select_lines(lines, version)
            add_to_index(root, index, name, _join_lines(line.raw for line in own))
        commit = commit_index(root, index, message, *([before] if before else []), *parents)
    # Only if nobody moved it meanwhile: zeros say that it must not exist.
    git(root, "update-ref", ref, commit, before or "0" * 40)


def _keep(line: Line, ledger: Sequence[Line]) -> None:
    """Write a version's lines to its run, and the new head to the registered model."""
    client = MlflowClient()
    made = find(line.version) if line.version is not None else None
    if made is not None:
        text = _join_lines(own.raw for own in select_lines(ledger, int(made.version)))
        client.log_text(read_run_id(made), text, name_file(int(made.version)))
    try:
        client.set_registered_model_tag(MODEL, HEAD, f"{line.number} {line.digest}")
    except MlflowException as error:
        if not is_absent(error):
            raise  # else: there is no version yet


def _join_lines(raws: Iterable[str]) -> str:
    return "".join(f"{raw}\n" for raw in raws)
