"""The evidence of a version in a folder that needs nothing else to be verified.

mammoflow evidence export 3 evidence-of-3
python evidence-of-3/verify.py
"""

import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from flows.evidence import verify
from flows.evidence.bom import BOM, read_locked_packages_of
from flows.evidence.keys import PUBLIC
from flows.evidence.ledger import name_file, read_head, read_ledger
from flows.evidence.verify import (
    LEDGER,
    MANIFEST,
    PAPERS,
    SNAPSHOT,
    VerificationReport,
    hash_folder,
)
from flows.processes.checked import require_empty
from flows.tracking.names import MODEL
from flows.tracking.registry import (
    ENVIRONMENT_ARTIFACT,
    copy_model,
    find_snapshot,
    read_artifact,
    read_folder,
    read_run_id,
)
from mammo.base.atomic_files import fresh_folder, write_json, write_text


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
    root: Path, version: ModelVersion, trusted: Collection[str]
) -> VerificationReport:
    """Verify the evidence of a version, as its export would be.

    Args:
        root: the clone, whose `keys/` counts.
        version: signed or not.
        trusted: the ids of the keys that the reader trusts; all of `keys/` if there are none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "export"
        folder.mkdir()
        _write_parts(root, version, folder, {})
        return verify.verify(folder, trusted=trusted)


def _write_parts(
    root: Path, version: ModelVersion, folder: Path, documents: Mapping[str, str]
) -> None:
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
        shutil.copytree(copy_model(version, Path(scratch)), folder / verify.MODEL)
    known = {"line": head[0], "digest": head[1]} if head is not None else None
    content = {"model": MODEL, "version": number, "head": known, "files": hash_folder(folder)}
    write_json(folder / MANIFEST, content)
