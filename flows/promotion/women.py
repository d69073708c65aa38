"""The test women of a snapshot: those of its train.csv, whatever a model can read of their images.

Who is a test woman follows from a hash of her id. The table lies in DVC's cache, so it is that of
the snapshot, whatever lies in the working tree.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from flows.pipeline.lock_and_cache import Cache, read_data_out
from flows.processes.words import Say
from flows.publishing.publish import fetch_objects
from flows.snapshots.snapshot import Snapshot, materialise
from mammo.base.errors import UserError
from mammo.base.settings import Split
from mammo.data.splits import BREAST, split_of, target_of

TABLE = "train.csv"


@dataclass(frozen=True)
class Women:
    """A set of test women."""

    ids: tuple[str, ...]  # sorted
    labels: str  # canonical JSON of each breast's woman, side and target


def read_test_images(root: Path, snapshot: Snapshot, cache: Cache, say: Say) -> pd.DataFrame:
    """The rows of train.csv of the test women, with their `target`, sorted by woman and image.

    Raises:
        UserError: if neither the cache nor the remote has the table, or there are no test women.
    """
    from mammo.data import reading, tables  # it imports pandera: a second that most commands save

    settings = yaml.safe_load(snapshot.files["params.yaml"])
    reason = "which says who the test women are"
    files = list_data(root, snapshot, cache, reason, say)
    rows = reading.read_table(cache.path(files[TABLE]), tables.TRAIN)
    shares = Split.model_validate(settings["split"])
    splits = {woman: split_of(woman, shares) for woman in rows["patient_id"].unique()}
    rows = rows[rows["patient_id"].map(splits) == "test"]
    if rows.empty:
        raise UserError(
            f"{read_data_out(snapshot)[0]}/{TABLE}: none of its women is in the test set"
        )
    rows = rows.assign(target=target_of(rows, settings["evaluate"]["target"]))
    return rows.sort_values(["patient_id", "image_id"], ignore_index=True)


def describe_women(images: pd.DataFrame) -> Women:
    """The women of the rows that `read_test_images` gives, with their labels."""
    breasts = images.groupby(BREAST, sort=True)["target"].max()
    labels = [[*key, int(target)] for key, target in breasts.items()]  # type: ignore[misc]
    ids = tuple(sorted(images["patient_id"].unique()))
    return Women(ids, json.dumps(labels, separators=(",", ":")))


def fetch_outs(root: Path, snapshot: Snapshot, targets: Sequence[str], say: Say) -> None:
    """Get from the remote, if there is one; what stays missing is the caller's to say."""
    with materialise(root, snapshot) as folder:
        fetch_objects(folder, targets, say)


def list_data(
    root: Path, snapshot: Snapshot, cache: Cache, reason: str, say: Say
) -> dict[str, str]:
    """The files of a snapshot's data with their hashes; `TABLE` lies in the cache afterwards.

    Args:
        root: the project.
        snapshot: whose data.
        cache: DVC's.
        reason: what for, if it must be said that they are missing.
        say: gets a line if they must be fetched.

    Raises:
        UserError: if neither the cache nor the remote has the list and the table.
    """
    name, md5 = read_data_out(snapshot)
    for fetched in (False, True):
        if fetched:
            fetch_outs(root, snapshot, [f"{name}/{TABLE}"], say)
        files = cache.listing(md5) if cache.state(md5) == "good" else {}
        if TABLE in files and cache.state(files[TABLE]) == "good":
            return files
    raise UserError(
        f"DVC's cache lacks {name}/{TABLE} (of the folder {md5}), {reason}: run this where the "
        f"cache is whole, or set a remote that has it"
    )
