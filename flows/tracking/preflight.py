"""What a command checks before it starts, creates or logs anything.

If a check fails, the command prints one sentence and exits with 2. What fails without asking a
server is told in less than two seconds; so it imports no module that brings Prefect, torch or
MLflow.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from flows.processes.reach import require_database, require_server
from flows.processes.run_git import (
    NoAnswerError,
    has_ref,
    list_remotes,
    read_remote_refs,
    succeeds,
)
from flows.processes.words import advise_install, hide_password, put_in_one_line
from mammo.assurance.plan import PLAN_FILE, load_plan
from mammo.base.errors import UserError
from mammo.base.settings import Params, load_params

MINIMUM = 500_000_000  # bytes that a run needs at least, for its logs, models and databases

_PATIENCE = 10.0  # seconds for a remote of git
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def check_project(root: Path) -> Params:
    """The settings of the project in a folder.

    Raises:
        UserError: if there is no project, git does not know it, or its settings or its plan are
            wrong.
    """
    check_clone(root)
    params = load_params(root / "params.yaml")
    load_plan(root / PLAN_FILE)
    return params


def check_clone(root: Path) -> None:
    """Make sure that a folder is a clone of a project; its settings are not read.

    Raises:
        UserError: if it is not, or git does not know it.
    """
    check_folder(root)
    if not succeeds(root, "rev-parse", "--quiet", "--verify", "HEAD^{commit}"):
        raise UserError(f"git has no commit in {root}: go to the folder of a clone, or commit")


def check_folder(root: Path) -> None:
    """Make sure that a folder has a project in it; git is not asked.

    Raises:
        UserError: if it has not.
    """
    for name in ("dvc.yaml", "params.yaml", ".dvc"):
        if not (root / name).exists():
            raise UserError(
                f"{root} is no project of Mammoflow, it has no {name}: go to the folder of a clone"
            )


def check_committed(root: Path) -> None:
    """Make sure that a version could be registered from this folder.

    Raises:
        UserError: naming the code that differs from the commit.
    """
    from flows.snapshots.snapshot import require_committed  # it imports DVC

    require_committed(root)


def check_data(root: Path) -> None:
    """Make sure that data/, if it is there, is what data.dvc names.

    Raises:
        UserError: if it is not.
    """
    from flows.pipeline.ensure_data import require_same_data  # it imports DVC

    require_same_data(root)


def check_pools(root: Path, pools: Sequence[str]) -> None:
    """Make sure that stages want these pools; whether they have workers, Prefect must be asked.

    Raises:
        UserError: if none does, or there is no remote of DVC's, through which files are exchanged.
    """
    if not pools:
        return
    from flows.pipeline.graph import read_pipeline, require_pools  # it imports DVC
    from flows.pipeline.transfer import require_remote

    try:
        stages = read_pipeline(root)
    except UserError:
        return  # a retrain says so, once it has mended a dvc.lock that was cut short
    require_pools(stages, pools)
    require_remote(root)


def check_remote(root: Path) -> None:
    """Make sure that DVC's default remote can be used, if there is one.

    Raises:
        UserError: within ten seconds, if it cannot.
    """
    from flows.processes.dvc_remote import require_default_remote  # it imports DVC

    require_default_remote(root)


def check_version(reference: str) -> int | None:
    """The number of the version that `3` or `champion` means; `check_registry` comes first.

    Returns:
        None if only MLflow knows.

    Raises:
        UserError: if it names none, or the registry has no such version.
    """
    from flows.tracking.look_up import find_number  # it reads the model's name, an option

    return find_number(os.environ["MLFLOW_TRACKING_URI"], reference)


def check_objects(root: Path, version: int | None) -> None:
    """Make sure that DVC's remote can be used, unless the cache has what an audit asks it for.

    Args:
        root: the clone.
        version: a number; None if it is not known yet.

    Raises:
        UserError: within ten seconds, if it cannot.
    """
    if version is None or not _is_cached(root, version):
        check_remote(root)


def check_tag(root: Path, version: int | None) -> None:
    """Make sure that git's remotes answer, where the git tag of a version must come from them.

    Args:
        root: the clone.
        version: a number; None if it is not known yet.

    Raises:
        NoAnswerError: within ten seconds for each remote, if one is silent and no other has it.
    """
    from flows.tracking.names import name_tag

    if version is None or has_ref(root, f"refs/tags/{name_tag(version)}"):
        return
    silent = None
    for remote in list_remotes(root):
        try:
            if read_remote_refs(root, remote, f"refs/tags/{name_tag(version)}", _PATIENCE):
                return
        except NoAnswerError as error:
            silent = error
        except UserError:
            continue  # the audit says more about a remote that refuses
    if silent is not None:
        raise silent


def check_git_remote(root: Path, remote: str | None) -> None:
    """Make sure that a remote of git can be used, if there is one.

    Raises:
        UserError: within ten seconds, if it cannot.
    """
    if remote is not None:
        read_remote_refs(root, remote, "refs/tags/none", _PATIENCE)


def _is_cached(root: Path, version: int) -> bool:
    """Whether DVC's cache has all objects of a version that this clone has the tag of.

    As `Subject.objects` of an audit: data, first weights, a pretraining, outs.
    """
    from flows.pipeline.first_weights import copy_records, read_tracked_weights
    from flows.pipeline.lock_and_cache import collect_outs, open_cache, read_data_out, read_lock
    from flows.pipeline.pretraining import read_pretraining_objects
    from flows.snapshots.snapshot import read_tag
    from flows.tracking.names import name_tag

    try:
        snapshot = read_tag(root, name_tag(version))
        with copy_records(root, snapshot.commit) as records:
            first = {**read_tracked_weights(records), **read_pretraining_objects(records)}
        objects = {**collect_outs(read_lock(snapshot)), **dict([read_data_out(snapshot)]), **first}
        cache = open_cache(root)
        return all(cache.holds(path, top) for path, top in objects.items())
    except UserError:
        return False  # no such tag, or records that the audit says more about


def check_tags(root: Path) -> None:
    """Make sure that git has no tags of another registry's versions; `check_registry` comes first.

    Raises:
        UserError: if it has.
    """
    from flows.tracking.look_up import read_highest  # they read the model's name, an option
    from flows.tracking.names import require_own_tags

    uri = os.environ["MLFLOW_TRACKING_URI"]
    highest = read_highest(uri)
    if highest is not None:
        require_own_tags(root, highest, uri)
    else:
        from flows.tracking.register import check_next_tag  # it imports MLflow

        check_next_tag(root)


def check_registry(begin: bool = False) -> None:
    """Make sure that the file, database or server of the registry is there.

    Args:
        begin: accept that a file is missing, since it will be made.

    Raises:
        UserError: within ten seconds, if it is not.
    """
    from flows.tracking.look_up import locate_file  # it reads the model's name, an option

    uri = os.environ["MLFLOW_TRACKING_URI"]
    kind = urlsplit(uri).scheme.partition("+")[0]
    if kind in ("http", "https"):
        require_server(uri, "MLflow")
    elif kind == "sqlite":
        _check_file(locate_file(uri), begin)
    elif kind in _PORTS:
        check_database(uri, "MLFLOW_TRACKING_URI")
    else:
        kinds = ", ".join(("http", "https", "sqlite", *_PORTS))
        raise UserError(
            f"MLFLOW_TRACKING_URI is {hide_password(uri)}, which is no address of a registry: it "
            f"must begin with one of {kinds} and ://, for instance sqlite:///mlruns/mlflow.db"
        )


def check_database(store: str, variable: str) -> None:
    """Make sure that Python can speak with a database, and that its server, if any, lets us in.

    MLflow itself would try ten times, for minutes, whatever the reason.

    Args:
        store: its address.
        variable: of the environment, which holds the address, for the message.

    Raises:
        UserError: within ten seconds, naming the package that is missing or the server, or with
            the reason that it gives.
    """
    _check_driver(store, variable)
    parts = urlsplit(store)
    kind = parts.scheme.partition("+")[0]
    if kind in _PORTS and parts.hostname:
        require_database(kind, parts.hostname, parts.port or _PORTS[kind])
        _log_in(store, parts.hostname)


def check_answer(store: str) -> None:
    """Make sure that the server of a database answers, if it has one; nobody logs in.

    Args:
        store: its address.

    Raises:
        UserError: within ten seconds, if it does not.
    """
    parts = urlsplit(store)
    kind = parts.scheme.partition("+")[0]
    if kind in _PORTS and parts.hostname:
        require_database(kind, parts.hostname, parts.port or _PORTS[kind])


def _log_in(store: str, host: str) -> None:
    """Connect with a database once, by name and password.

    Raises:
        UserError: with the reason why it does not let us in.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        create_engine(store, poolclass=NullPool).connect().close()
    except SQLAlchemyError as error:
        reason = put_in_one_line(getattr(error, "orig", None) or error)
        raise UserError(f"the registry's database at {host} cannot be used: {reason}") from None


def _check_driver(store: str, variable: str) -> None:
    """Make sure that the package for a database is there.

    Raises:
        UserError: naming the package that is missing.
    """
    # Not at the top: it takes time, which most commands do not need.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(store).get_dialect().import_dbapi()
    except ImportError as error:
        scheme = store.partition(":")[0]
        package = "psycopg[binary]" if error.name == "psycopg" else str(error.name)
        raise UserError(
            f"{variable} is an address of {scheme}, which needs the package {package}: "
            f"{advise_install(package)}"
        ) from None
    except ArgumentError as error:  # also if no such dialect is known
        raise UserError(f"{variable} is no address of a database: {error}") from None
    except ValueError:
        raise UserError(f"{variable} is no address of a database: its port is no number") from None


def check_disk(root: Path, wanted: int) -> None:
    """Make sure that the disk has space for `wanted` bytes, and for what any run writes.

    Raises:
        UserError: if it has not.
    """
    # The folder itself may be made later.
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < wanted + MINIMUM:
        raise UserError(
            f"the disk of {root} has {format_bytes(free)} free, and this may take "
            f"{format_bytes(wanted + MINIMUM)}: free space"
        )


def format_bytes(count: int) -> str:
    """A number of bytes in GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _check_file(database: Path, begin: bool) -> None:
    if not database.exists() and not begin:
        raise UserError(
            f"there is no registry {database.absolute()}: set MLFLOW_TRACKING_URI to the team's, or"
            f" begin one with `mammoflow retrain`"
        )
    existing = next(path for path in (database, *database.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise UserError(f"{database.absolute()}: cannot be written: check its permissions")
