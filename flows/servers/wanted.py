"""What `mammoflow up` is asked for, looked at before anything is started or made.

It imports neither Prefect nor MLflow, which take seconds.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from flows.processes.reach import require_prefect
from flows.processes.words import advise_install
from flows.servers.supervised import require_free
from flows.tracking.preflight import check_answer, check_database
from mammo.base.errors import UserError

POOLS = {"cpu": None, "gpu": 1}
"""The work pools and how many runs a worker takes at once: a GPU trains one network at a time."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and how its own machine reaches it."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address without a path."""
        local = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104  (nothing is bound to it)
        return f"http://{local}:{self.port}"


def find_prefect_address() -> Address:
    """Where Prefect's server is to listen.

    Raises:
        UserError: if the port is no number.
    """
    return _read_address("PREFECT_SERVER_API", 4200)


def find_mlflow_address() -> Address:
    """Where MLflow's server is to listen.

    Raises:
        UserError: if the port is no number.
    """
    return _read_address("MLFLOW", 5000)


def find_artifacts_folder(root: Path) -> str:
    """Where the artifacts of a clone's own registry are."""
    return str(root / "mlruns" / "artifacts")


def check_wanted(root: Path, workers: Sequence[str], without: Sequence[str]) -> None:
    """Make sure that what is asked for can be started; nothing is.

    Args:
        root: the clone.
        workers: pools; if given, only their workers are wanted, and no server.
        without: pools whose workers are on other machines.

    Raises:
        UserError: if a name, a variable, a port, a package or a server is not as it must be.
    """
    if not (root / "prefect.yaml").exists():
        raise UserError(f"{root} has no prefect.yaml: start this in a clone of the project")
    unknown = sorted({*workers, *without} - set(POOLS))
    if unknown:
        raise UserError(f"there is no pool {', '.join(unknown)}, only {', '.join(POOLS)}")
    if workers:
        if not os.environ.get("PREFECT_API_URL"):
            raise UserError("a worker alone needs PREFECT_API_URL: the address of a Prefect server")
        require_prefect()
        return
    prefect, mlflow = find_prefect_address(), find_mlflow_address()
    require_free(prefect.host, prefect.port, "PREFECT_SERVER_API_PORT")
    require_free(mlflow.host, mlflow.port, "MLFLOW_PORT")
    _check_store(root)
    if database := os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL"):
        check_answer(database)


def _check_store(root: Path) -> None:
    """Make sure that MLflow's server can use where it is to keep its state.

    Raises:
        UserError: if not.
    """
    store = os.environ.get("MLFLOW_BACKEND_STORE_URI")
    artifacts = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", find_artifacts_folder(root))
    if store is not None:
        check_database(store, "MLFLOW_BACKEND_STORE_URI")
    elif artifacts != find_artifacts_folder(root):
        raise UserError(
            f"MLFLOW_ARTIFACTS_DESTINATION is {artifacts}, but the artifacts of the clone's own "
            f"registry are in mlruns/artifacts: set MLFLOW_BACKEND_STORE_URI as well, or neither"
        )
    if artifacts.startswith("s3:") and find_spec("boto3") is None:
        # Otherwise the server would start, and fail at each artifact.
        raise UserError(
            f"MLFLOW_ARTIFACTS_DESTINATION is {artifacts}, which needs the package boto3: "
            f"{advise_install('boto3')}"
        )


def _read_address(prefix: str, port: int) -> Address:
    named = os.environ.get(f"{prefix}_PORT", str(port))
    if not named.isdecimal() or int(named) > 65535:
        raise UserError(f"{prefix}_PORT is {named}: name a port from 0 to 65535")
    return Address(os.environ.get(f"{prefix}_HOST", "127.0.0.1"), int(named))
