"""The version that is audited: what its snapshot's files record, and where its files are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from flows.pipeline.first_weights import read_tracked_weights
from flows.pipeline.graph import Stage, read_pipeline
from flows.pipeline.lock_and_cache import (
    Cache,
    LockedStage,
    collect_outs,
    open_cache,
    read_data_out,
    read_lock,
    read_sizes,
)
from flows.pipeline.pretraining import LOCK, read_pretraining, read_pretraining_objects
from flows.snapshots.snapshot import Snapshot


@dataclass(frozen=True)
class Subject:
    """A version, its snapshot, and what the snapshot's files record. Hashes are DVC's."""

    root: Path  # the auditor's clone
    folder: Path  # the snapshot, materialised
    version: ModelVersion
    run: Run  # of the retrain, in MLflow
    snapshot: Snapshot
    locked: Sequence[LockedStage]  # the stages as dvc.lock has them
    pipeline: Sequence[Stage]  # the stages as dvc.yaml has them
    data: tuple[str, str]  # path and hash of the raw data
    first_weights: Mapping[str, str]  # path and hash of each file
    pretraining: Sequence[LockedStage]  # its stages, as its own dvc.lock has them; often none
    pretraining_objects: Mapping[str, str]  # path and hash of its data and outs
    cache: Cache

    @property
    def outs(self) -> dict[str, str]:
        """Path and hash of each out of the stages."""
        return collect_outs(self.locked)

    @property
    def objects(self) -> dict[str, str]:
        """Path and hash of all that DVC keeps of it: data, first weights, a pretraining, outs."""
        return {
            **dict([self.data]),
            **self.first_weights,
            **self.pretraining_objects,
            **self.outs,
        }

    def read_sizes(self) -> dict[str, int]:
        """Bytes of each of these objects, by its hash."""
        objects = self.objects
        files = ["dvc.lock", LOCK, *(f"{path}.dvc" for path in objects)]
        sizes = read_sizes(self.folder, files)
        return {md5: sizes[md5] for md5 in objects.values() if md5 in sizes}


def read_subject(
    root: Path, folder: Path, version: ModelVersion, run: Run, snapshot: Snapshot
) -> Subject:
    """Read a snapshot's dvc.lock, dvc.yaml and .dvc files.

    Args:
        root: the auditor's clone.
        folder: the snapshot, materialised.
        version: the version that is audited.
        run: the run that the version came from.
        snapshot: the version's.

    Raises:
        UserError: if one of them is missing, or is not what DVC writes.
    """
    return Subject(
        root=root,
        folder=folder,
        version=version,
        run=run,
        snapshot=snapshot,
        locked=read_lock(snapshot),
        pipeline=read_pipeline(folder),
        data=read_data_out(snapshot),
        first_weights=read_tracked_weights(folder),
        pretraining=read_pretraining(folder),
        pretraining_objects=read_pretraining_objects(folder),
        cache=open_cache(root),
    )
