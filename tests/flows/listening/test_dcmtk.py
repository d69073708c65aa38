"""The node between dcmtk's programs: another implementation sends, and another one receives.

    apt-get install dcmtk

The model is a small real one, and each file is read in a process of its own.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import uid

from flows.listening.deliver import Pauses, Peer
from flows.listening.journal import JOURNAL, Journal
from flows.listening.listen import make_reader
from flows.listening.node import receive_images
from flows.listening.spool import open_spool
from flows.listening.work import Settings, answer_complete, send_waiting
from mammo.base.atomic_files import write_json
from tests.flows.listening.test_killed import references
from tests.support.learning import write_untrained_predictor
from tests.support.listening import read_journal, wait_until
from tests.support.serving import load_folder
from tests.support.toys import find_free_port


def find_dcmtk(name: str) -> str | None:
    """A program of dcmtk; pynetdicom's environment has other ones of the same names."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = shutil.which(name, path=folder)
        if found is None:
            continue
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        if "dcmtk" in said.stdout:
            return found
    return None


ECHO, STORE, RECEIVE = (find_dcmtk(name) for name in ("echoscu", "storescu", "storescp"))
pytestmark = pytest.mark.skipif(
    None in (ECHO, STORE, RECEIVE), reason="no dcmtk: apt-get install dcmtk"
)

OFFER = {uid.JPEG2000Lossless: "-xv", uid.JPEGLosslessSV1: "-xs"}
"""What tells storescu to offer a syntax."""


@pytest.fixture
def received(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of dcmtk's receiver, and where it puts what it gets."""
    folder, port = tmp_path / "received", find_free_port()
    folder.mkdir()
    command = [str(RECEIVE), "--aetitle", "PACS", "-od", str(folder), f"{port}"]
    process = subprocess.Popen(command)

    def answers() -> bool:
        asked = [str(ECHO), "-aec", "PACS", "127.0.0.1", f"{port}"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    wait_until(answers)
    yield port, folder
    process.terminate()
    process.wait(30)


def test_a_study_by_storescu_comes_back_as_reports_to_storescp(
    women: list[list[Path]], received: tuple[int, Path], tmp_path: Path
) -> None:
    port, folder = received
    predictor = write_untrained_predictor(tmp_path / "predictor")
    scores = {"threshold": {"breast": 0.0, "image": 0.5}}
    write_json(predictor / "evaluate/metrics.json", scores)
    reader = make_reader(load_folder(predictor, version=3))
    with open_spool(tmp_path / "spool", 2**30) as spool:
        journal = Journal(tmp_path / "spool" / JOURNAL)
        settings = Settings(tmp_path / "spool", Peer("127.0.0.1", port, "PACS"), quiet=0.0)
        over = threading.Event()
        with receive_images("127.0.0.1", 0, "MAMMOFLOW", ["MODALITY"], spool, journal) as ours:
            to = ["-aec", "MAMMOFLOW", "127.0.0.1", f"{ours}"]
            assert subprocess.run([str(ECHO), "-aet", "MODALITY", *to]).returncode == 0
            assert subprocess.run([str(ECHO), "-aet", "STRANGER", *to]).returncode != 0
            for woman in (women[0], women[1][:1]):
                offered = OFFER[pydicom.dcmread(woman[0]).file_meta.TransferSyntaxUID]
                sent = [str(STORE), "-R", offered, "-aet", "MODALITY", *to, *map(str, woman)]
                assert subprocess.run(sent).returncode == 0
        answer_complete(reader, settings, spool, journal, over)
        send_waiting(settings, spool, journal, Pauses(), over)
    written = [pydicom.dcmread(file) for file in folder.iterdir()]
    reports = [one for one in written if one.Modality == "SR"]
    assert sorted(len(references(report)) for report in reports) == [1, 4]
    assert len([one for one in written if one.Modality == "OT"]) == 5
    assert read_journal(tmp_path / "spool")[-1]["step"] == "answered"
