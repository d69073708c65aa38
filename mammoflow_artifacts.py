"""What `mlflow-artifacts:` means without a server: the folder beside MLflow's SQLite file.

This is a plug-in of MLflow (entry point `mlflow.artifact_repository` in pyproject.toml). Everything
that uses MLflow in this environment has it, also `mlflow models serve` and a line of Python.

The registry keeps addresses such as `mlflow-artifacts:/RUN/artifacts`, which name no machine and no
folder. A server resolves them for its clients, with the folder that it was started with. Without a
server, MLflow refuses them; with this plug-in it finds them in `artifacts/`, beside the file. So
the same addresses are right with a server, without one, and wherever the clone is moved or copied.

Absolute paths, rewritten when the store is opened in another folder, were tried and rejected. A
server's client would look for them on its own disk, so they would have to differ while a server
runs, and would change under it as soon as somebody uses the clone without the server.

The module belongs to none of the three floors and imports nothing of ours. MLflow loads it together
with itself, and `mammo` must not be loaded then, since a registered model brings its own.
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
    """The object that reads and writes the artifacts at a `mlflow-artifacts:` address.

    Args:
        artifact_uri: the address.
        tracking_uri: of the store that has the address; MLflow's current one if it is not given.
        registry_uri: passed on to MLflow.

    Raises:
        MlflowException: if the address leads out of the folder.
    """
    # Not imported by name: MLflow loads this module while it is being imported itself.
    store = tracking_uri or mlflow.get_tracking_uri()
    file = sqlite_file(store)
    address = urlsplit(artifact_uri)
    if file is None or address.netloc:  # a server resolves it
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
    from sqlalchemy.engine import make_url  # slow to import, and a server's client does not need it

    name = make_url(tracking_uri).database
    return Path(os.path.abspath(name)) if name else None  # noqa: PTH100 - links stay as they are
