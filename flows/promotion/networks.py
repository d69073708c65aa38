"""What a predictor is, by its snapshot: both networks' files, and the settings that it reads."""

import json
from typing import Any

import yaml
from mlflow.entities.model_registry import ModelVersion

from flows.evidence.statements import hash_text
from flows.pipeline.lock_and_cache import collect_outs, read_lock
from flows.snapshots.snapshot import Snapshot
from flows.tracking.register import NETWORKS
from flows.tracking.registry import FAULTS, find_snapshot
from mammo.base.atomic_files import NETWORK_FILES
from mammo.base.errors import UserError

_SETTINGS = ("threads", "preprocess", "detector", "crop", "classifier")  # that a predictor reads


def read_networks(snapshot: Snapshot) -> dict[str, str]:
    """The files of both networks and DVC's hashes of them, as a snapshot's dvc.lock names them."""
    wanted = {f"{folder}/{name}" for folder in NETWORKS.values() for name in NETWORK_FILES}
    outs = collect_outs(read_lock(snapshot))
    return {path: md5 for path, md5 in outs.items() if path in wanted}


def digest_networks(version: ModelVersion) -> str:
    """SHA-256 of a registered version's `read_networks`; empty if its records cannot be read.

    That MLflow's artifacts are out of reach is no reason to keep a bad champion: so that is one of
    these cases, too.
    """
    try:
        snapshot = find_snapshot(version)
        networks = read_networks(snapshot) if snapshot is not None else {}
    except (UserError, *FAULTS):
        return ""  # its records are damaged, and `mammoflow audit` says how; or out of reach
    if not networks:
        return ""
    return hash_text(json.dumps(networks, sort_keys=True))


def read_predictor_settings(snapshot: Snapshot) -> dict[str, Any]:
    """The settings of a snapshot that its predictor reads."""
    settings = yaml.safe_load(snapshot.files["params.yaml"])
    return {key: settings.get(key) for key in _SETTINGS}


def predict_alike(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots made the same predictor: same networks, and same settings for it."""
    return (
        bool(read_networks(one))
        and read_networks(one) == read_networks(other)
        and read_predictor_settings(one) == read_predictor_settings(other)
    )
