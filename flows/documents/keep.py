"""The documents of a version, kept with its run in MLflow and signed, or written into a folder.

mammoflow documents 3
mammoflow documents 3 --out papers
"""

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.documents.facts import gather
from flows.documents.render import Papers, write_papers
from flows.evidence.keys import find_owner
from flows.evidence.signing import find_signed_documents, sign_documents
from flows.evidence.statements import hash_text
from flows.evidence.verify import DOCUMENTS, PAPERS, ROLES
from flows.processes.checked import require_empty
from flows.tracking.registry import find_snapshot, read_folder, read_run_id
from mammo.base.atomic_files import fresh_folder, write_text
from mammo.base.errors import UserError


def make_documents(root: Path, version: ModelVersion) -> Papers:
    """The documents of a version, by what is recorded of it now.

    Raises:
        UserError: as `gather`.
    """
    return write_papers(gather(root, version))


def keep_documents(root: Path, version: ModelVersion) -> Papers:
    """Write the documents of a version among the artifacts of its run, instead of earlier ones.

    They are signed, where there is a key of the role builder or approver.

    Raises:
        UserError: as `gather`; or if earlier ones are signed, and there is no key to sign these.
    """
    papers, run, number = make_documents(root, version), read_run_id(version), version.version
    kept = read_folder(run, PAPERS)
    if gone := sorted(kept.keys() - papers.files.keys()):
        raise UserError(
            f"the documents of version {number} would lose {', '.join(gone)}, since this clone's "
            f"DVC cache lacks what they were made from: run this in a clone whose cache has it"
        )
    if kept != papers.files:
        signed = find_signed_documents(root, version)
        if signed is not None and find_owner(root, *ROLES[DOCUMENTS]) is None:
            raise UserError(
                f"{signed.name} would no longer fit: who renews signed documents needs a key of "
                f"the role builder or approver; `mammoflow documents {number} --out DIR` writes "
                f"them into a folder instead"
            )
        with tempfile.TemporaryDirectory() as scratch:
            for name, text in papers.files.items():
                write_text(Path(scratch) / name, text)
            MlflowClient().log_artifacts(run, scratch, PAPERS)
    hashes = {name: hash_text(text) for name, text in papers.files.items()}
    sign_documents(root, version, hashes, find_snapshot(version), papers.to_be_written)
    return papers


def try_to_keep_documents(root: Path, version: ModelVersion) -> str | None:
    """As `keep_documents`, but return what is wrong: this undoes no promotion.

    The next retrain of a version that has no documents tries again.
    """
    try:
        keep_documents(root, version)
    except UserError as error:
        return f"the documents of version {version.version} are not written: {error}"
    return None


def has_documents(version: ModelVersion) -> bool:
    """Whether documents were kept with a version."""
    return bool(MlflowClient().list_artifacts(read_run_id(version), PAPERS))


def write_documents(papers: Papers, folder: Path) -> None:
    """Write documents into a folder.

    Raises:
        UserError: if the folder is not empty.
    """
    require_empty(folder)
    with fresh_folder(folder) as new:
        for name, text in papers.files.items():
            write_text(new / name, text)
