"""The evidence of a version in a folder that needs nothing else to be verified.

mammoflow evidence export 3 evidence-of-3
python evidence-of-3/verify.py
"""

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from flows.evidence import verify
from flows.evidence.bom import BOM, read_locked_packages_of
from flows.evidence.keys import PUBLIC
from flows.evidence.ledger import name_file, read_head, read_ledger
from flows.evidence.verify import (
    DECISIONS,
    LEDGER,
    MANIFEST,
    PAPERS,
    PROVENANCE,
    RECORD,
    SNAPSHOT,
    Line,
    VerificationReport,
    check_snapshot,
    describe_compiled,
    find_planted,
    hash_folder,
    read_lines,
    write_manifest,
)
from flows.processes.checked import require_empty
from flows.publishing.publish import fetch_tag
from flows.snapshots.snapshot import read_tag
from flows.tracking import aliases
from flows.tracking.names import MODEL, name_tag
from flows.tracking.registry import (
    CHAMPION,
    ENVIRONMENT_ARTIFACT,
    copy_model,
    find_snapshot,
    read_artifact,
    read_folder,
    read_run_id,
)
from mammo.base.atomic_files import fresh_folder, write_text
from mammo.base.errors import UserError


def export(
    root: Path, version: ModelVersion, folder: Path, documents: Mapping[str, str] | None = None
) -> None:
    """Write the evidence of a version: ledger, keys, records, documents, model, verifier.

    Args:
        root: the clone, whose `keys/` goes with it.
        version: signed or not.
        folder: must not exist yet, or be empty.
        documents: the texts to take, by name, if none were kept with the version.

    Raises:
        UserError: if the folder is not empty, or the version's records cannot be read.
    """
    require_empty(folder)
    with fresh_folder(folder) as new:
        _write_parts(root, version, new, documents or {})


def verify_version(
    root: Path,
    version: ModelVersion,
    trusted: Collection[str],
    known: tuple[int, str] | None = None,
) -> VerificationReport:
    """Verify the evidence of a version, as its export would be, and against registry and git.

    Args:
        root: the clone, whose `keys/` counts.
        version: signed or not.
        trusted: the ids of the keys that the reader trusts; all of `keys/` if there are none.
        known: number and digest of a line that the reader wrote down as the last, earlier.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "export"
        folder.mkdir()
        planted = _write_parts(root, version, folder, {})
        report = verify.verify(folder, trusted=trusted, known=known)
    lines, _ = read_lines(read_ledger(root))
    made = [x for x in lines if (x.kind, x.version) == (PROVENANCE, int(version.version))]
    if made:
        try:
            report.wrong += _check_records(root, version, made[0])
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            report.wrong.append(f"{made[0].name} lacks a part ({error!r})")
        report.wrong += describe_compiled(planted, "the model")
    report.notes += _note_champion(lines)
    return report


def _check_records(root: Path, version: ModelVersion, made: Line) -> Iterator[str]:
    """Find where the registry or git names another snapshot than the one that was signed."""
    tags = version.tags
    where = f"the registry's tags of version {version.version}"
    yield from check_snapshot(made, where, tags.get("git_commit"), tags.get("snapshot_digest"))
    name = name_tag(int(version.version))
    try:
        gone = fetch_tag(root, int(version.version))
        found = read_tag(root, name) if gone is None else None
    except UserError:
        found = None  # an audit demands the tag; here what is there must fit
    if found is not None:
        yield from check_snapshot(made, f"the tag {name} of git", found.commit, found.digest)


def _note_champion(lines: Sequence[Line]) -> Iterator[str]:
    """Find where the champion of the registry is not the one of the last signed move."""
    moves = [x for x in lines if x.kind in DECISIONS and x.kind != "refusal"]
    now = aliases.read_current().get(CHAMPION)
    if moves and moves[-1].predicate.get("to") != now:
        yield (
            f"the champion is {'nobody' if now is None else f'version {now}'} in the registry, and "
            f"version {moves[-1].predicate.get('to')} by {moves[-1].name}: it changed since, and "
            f"nobody signed it"
        )


def _write_parts(
    root: Path, version: ModelVersion, folder: Path, documents: Mapping[str, str]
) -> list[str]:
    """Write all that an export holds.

    Returns:
        The paths of bytecode in the registered model that its source does not give; like all
        bytecode it is left out.
    """
    number, run = int(version.version), read_run_id(version)
    snapshot = find_snapshot(version)
    raws, head = read_ledger(root), read_head()
    own = name_file(number)
    texts = {LEDGER: "".join(f"{raw}\n" for raw in raws), own: read_artifact(run, own)}
    for name in (ENVIRONMENT_ARTIFACT, BOM):
        texts[name] = read_artifact(run, name)
    papers = read_folder(run, PAPERS) or documents
    texts |= {f"{PAPERS}/{name}": text for name, text in papers.items()}
    if snapshot is not None:
        texts |= {f"{SNAPSHOT}/{name}": text for name, text in snapshot.files.items()}
        texts[RECORD] = snapshot.to_json()
        texts[f"{SNAPSHOT}/requirements.lock"] = read_locked_packages_of(root, snapshot)
    for name, text in texts.items():
        if text is not None:
            write_text(folder / name, text)
    if (root / PUBLIC).is_dir():
        (folder / PUBLIC).mkdir()
        for path in sorted((root / PUBLIC).glob("*.json")):
            shutil.copyfile(path, folder / PUBLIC / path.name)
    shutil.copyfile(verify.__file__, folder / "verify.py")
    with tempfile.TemporaryDirectory() as scratch:
        model = copy_model(version, Path(scratch))
        planted = find_planted(model)
        # Bytecode that a load has left in a store on a disk is no part of the model.
        bare = shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyo")
        shutil.copytree(model, folder / verify.MODEL, ignore=bare)
    known = {"line": head[0], "digest": head[1]} if head is not None else None
    content = {"model": MODEL, "version": number, "head": known, "files": hash_folder(folder)}
    write_text(folder / MANIFEST, write_manifest(content))
    return planted
