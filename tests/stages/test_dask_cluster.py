"""Work over a real Dask cluster on loopback: the same outs, and a worker that dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.compute import dask_map
from mammo.compute.dask_map import map_over_dask
from mammo.detector.detector import build_detector, save_detector
from mammo.kept.code_version import code_version
from mammo.kept.result_store import Store
from mammo.pins import PINS, X86
from stages import crop_rois, preprocess
from tests.imports import ROOT
from tests.support.contents import contents
from tests.support.holding import hold
from tests.support.preprocessing import tiny
from tests.support.tiny_mammograms import write_preprocessed

MODULE, LIBRARIES = "mammo.imaging.breast_mask", ("numpy",)


class Cluster:
    """A scheduler, and workers that are started one by one."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.env = {**(os.environ if env is None else env), "PYTHONPATH": str(ROOT)}
        self.processes: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self.start("scheduler", "--port", "0", "--scheduler-file", str(file))
        while not file.exists():
            assert self.processes[0].poll() is None, self.said()
            time.sleep(0.1)
        self.address = json.loads(file.read_text())["address"]

    def start(self, what: str, *arguments: str) -> None:
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "dask", what, "--host", "127.0.0.1", "--no-dashboard",
                    *arguments,
                ],
                env=self.env, stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        self.processes.append(process)

    def workers(self, count: int) -> None:
        """Start `count` workers and wait for them."""
        with Client(self.address, set_as_default=False) as client:
            there = len(client.scheduler_info(n_workers=-1)["workers"])
            for _ in range(count):
                self.start("worker", self.address, "--nthreads", "1", "--no-nanny")
            client.wait_for_workers(there + count, timeout=180)

    def said(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        started.workers(2)
        yield started
    finally:
        started.stop()


def test_preprocess_writes_the_same(
    cluster: Cluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "train_images/29/0004.dcm").write_bytes(b"not an image")
    settings = tiny(max_reject_fraction=0.5)
    preprocess.run(settings, data, tmp_path / "alone", 0)
    monkeypatch.setenv("DASK_SCHEDULER", cluster.address)
    monkeypatch.setattr(preprocess, "_prepare_one", None)  # what works in local processes
    preprocess.run(settings, data, tmp_path / "away", 1, Store(tmp_path / "store", 2**30))
    assert contents(tmp_path / "away") == contents(tmp_path / "alone")
    assert contents(tmp_path / "store")


def test_crop_rois_writes_the_same(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_preprocessed(tmp_path / "preprocess", 4)
    pin(0, threads=1)
    (tmp_path / "detector").mkdir()
    save_detector(build_detector("yolo11n.yaml", 64), tmp_path / "detector")
    params = tiny()
    sure = params.crop.model_copy(update={"confidence": 0.0})
    params = params.model_copy(update={"crop": sure, "threads": 1})
    crop_rois.run(params, tmp_path / "preprocess", tmp_path / "detector", tmp_path / "alone")
    monkeypatch.setenv("DASK_SCHEDULER", cluster.address)
    crop_rois.run(params, tmp_path / "preprocess", tmp_path / "detector", tmp_path / "away")
    assert contents(tmp_path / "away") == contents(tmp_path / "alone")


def kill_holder(folder: Path) -> None:
    while not (folder / "ready").exists():
        time.sleep(0.05)
    while not (folder / "holder").exists():
        time.sleep(0.05)
    os.kill(int((folder / "ready").read_text()), signal.SIGKILL)


def squares(cluster: Cluster, folder: Path) -> list[int | None]:
    killer = threading.Thread(target=kill_holder, args=(folder,), daemon=True)
    killer.start()
    work = partial(hold, folder=folder)
    found = list(map_over_dask(work, range(30), cluster.address, folder, MODULE, LIBRARIES))
    killer.join()
    return found


def test_the_work_of_a_worker_that_dies_is_done_by_another(
    cluster: Cluster, tmp_path: Path
) -> None:
    assert squares(cluster, tmp_path) == [number * number for number in range(30)]


def test_an_item_that_workers_die_of_costs_the_others_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.workers(1)
    with Client(cluster.address, set_as_default=False) as client:

        def strict(dask_scheduler: Any = None) -> None:
            dask_scheduler.allowed_failures = 0

        client.run_on_scheduler(strict)
    found = squares(cluster, tmp_path)
    assert found[3] is None or None in found  # with what else the worker had in hand
    assert all(value in (None, number * number) for number, value in enumerate(found))
    assert len(found) == 30


def test_a_cluster_without_workers_is_told(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for process in cluster.processes[1:]:
        process.kill()
        process.wait()
    monkeypatch.setattr(dask_map, "PATIENCE", 1.0)
    work = partial(hold, folder=tmp_path)
    with pytest.raises(UserError, match="has no workers; start at least one"):
        list(map_over_dask(work, range(3), cluster.address, tmp_path, MODULE, LIBRARIES))


def test_no_scheduler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_map, "CONNECT", 1.0)
    with socket.socket() as bound:  # taken, and nobody listens
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        work = partial(hold, folder=tmp_path)
        with pytest.raises(UserError, match=f"no Dask scheduler answers at {address}"):
            list(map_over_dask(work, range(3), address, tmp_path, MODULE, LIBRARIES))


@pytest.mark.skipif(not X86, reason="kernels are chosen otherwise on this architecture")
def test_a_worker_without_the_pins_refuses(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in PINS}
    cluster = Cluster(tmp_path, bare)
    try:
        cluster.workers(1)
        with pytest.raises(UserError, match="NumPy was loaded before mammo could"):
            list(map_over_dask(abs, [-3], cluster.address, tmp_path, MODULE, LIBRARIES))
    finally:
        cluster.stop()


def test_a_worker_that_is_not_like_us_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="other code or other libraries"):
        dask_map._work_if_alike(abs, tmp_path, MODULE, LIBRARIES, "another version", 3)
    ours = code_version(MODULE, LIBRARIES)
    with pytest.raises(UserError, match=r"does not see .*nowhere"):
        dask_map._work_if_alike(abs, tmp_path / "nowhere", MODULE, LIBRARIES, ours, 3)
    assert dask_map._work_if_alike(abs, tmp_path, MODULE, LIBRARIES, ours, -3) == 3
