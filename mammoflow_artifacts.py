"""What `mlflow-artifacts:` means where no server is asked: the folder beside the SQLite file.

A plug-in of MLflow's (entry point `mlflow.artifact_repository` in pyproject.toml): whatever uses
MLflow in this environment has it, `mlflow models serve` and a line of Python included.

The registry keeps addresses such as `mlflow-artifacts:/RUN/artifacts`, which name no machine and no
folder. A server resolves them for any client of MLflow's, with the folder that it was told. Alone
in a clone MLflow refuses them; with this it finds them in `artifacts/`, beside the file. So the
same rows are right alone, through a server, and wherever the clone is moved or copied to. Tried as
well, and not taken: absolute paths, written anew when the store is opened at another place. A
server's client takes them for its own disk, so they must be others while a server runs, and change
under it as soon as somebody works alone beside it.

It belongs to none of the three floors and imports nothing of ours: MLflow loads it with itself, and
`mammo` must not be loaded by then, since a registered model brings its own.
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

FOLDER = "artifacts"


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    """What reads and writes the artifacts at a `mlflow-artifacts:` address.

    Args:
        artifact_uri: the address.
        tracking_uri: of the store that has it; without, MLflow's current one.
        registry_uri: for MLflow's own.

    Raises:
        MlflowException: if the address leads out of the folder.
    """
    # Not imported by name: MLflow loads this module while it is being imported itself.
    store = tracking_uri or mlflow.get_tracking_uri()
    file = sqlite_file(store)
    address = urlsplit(artifact_uri)
    if file is None or address.netloc:  # a server's
        return MlflowArtifactsRepository(artifact_uri, store, registry_uri)
    folder = file.parent / FOLDER
    found = Path(os.path.normpath(folder / unquote(address.path).lstrip("/")))
    if not found.is_relative_to(folder):
        raise MlflowException(
            f"the artifact address {artifact_uri} leads out of {folder}: somebody changed it",
            INVALID_PARAMETER_VALUE,
        )
    return LocalArtifactRepository(found.as_uri(), tracking_uri, registry_uri)


def sqlite_file(tracking_uri: str) -> Path | None:
    """The file of a SQLite store, absolute; None if it is another kind of store."""
    if not tracking_uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url  # a client of a server has no other use for it

    name = make_url(tracking_uri).database
    return Path(os.path.abspath(name)) if name else None  # noqa: PTH100 - links stay as they are
