"""A DICOM node in processes that are killed, the sender and the receiver that it meets.

python -m tests.support.listening

reads lines of JSON, and forks a process for each: quick, since what it needs is imported once. Its
model reads real files and has no networks: what it says follows from the file's UID.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from flows.listening.answer import Reader, answer
from flows.listening.deliver import GAP, Pauses, Peer
from flows.listening.journal import JOURNAL, Journal
from flows.listening.spool import open_spool
from flows.listening.work import Settings, send_waiting, work
from mammo.base.settings import Preprocess
from mammo.imaging.geometry import Box
from mammo.intake.prepare import prepare
from mammo.serving.finding import ImageFinding, Model, OperatingPoint
from mammo.serving.identity import read_identity
from tests.imports import ROOT

MODEL = Model("mammogram-classifier", 3, "5e" * 32, "c0" * 20, "ab" * 32)
RESULTS = (
    uid.MammographyCADSRStorage,
    uid.ComprehensiveSRStorage,
    uid.SecondaryCaptureImageStorage,
)
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime"}


def compute_probability(instance: str) -> float:
    """What the model says of an image: in [0, 1)."""
    return hashlib.sha256(instance.encode()).digest()[0] / 256


def examine(files: Sequence[Path]) -> Iterator[ImageFinding]:
    """What the model finds in files that can be read."""
    settings = Preprocess(long_side=64, full_decode=False, max_reject_fraction=0)
    for number, file in enumerate(files, start=1):
        prepared = prepare(file, settings)
        about, placement, identity = prepared.description, prepared.placement, read_identity(file)
        yield ImageFinding(
            number=number,
            source=str(file),
            identity=identity,
            laterality=about.laterality,
            view=about.view,
            rows=placement.stored_height,
            columns=placement.stored_width,
            probability=compute_probability(str(identity.instance)),
            box=Box(0, 0, placement.stored_width, placement.stored_height),
            found_by="whole",
            peak=None,
            region=None,
            heatmap=None,
        )


READER = Reader(examine, MODEL, OperatingPoint(0.0, 2.0), "max")  # every view is suspicious


@dataclass
class ReceivingNode:
    """A node that takes results: each object's bytes, as often as it came."""

    port: int = 0
    got: dict[str, list[Dataset]] = field(default_factory=dict)
    status: int = 0x0000  # its answer

    def reports(self) -> list[Dataset]:
        """The structured reports, in the order in which they came first."""
        return [came[0] for came in self.got.values() if came[0].Modality == "SR"]

    @property
    def address(self) -> Peer:
        return Peer("127.0.0.1", self.port, "PACS")


@contextmanager
def receiving(port: int = 0) -> Iterator[ReceivingNode]:
    """A receiver at work."""
    receiver = ReceivingNode()

    def take(event: evt.Event) -> int:
        dataset = event.dataset
        if receiver.status == 0x0000:
            receiver.got.setdefault(dataset.SOPInstanceUID, []).append(dataset)
        return receiver.status

    node = ApplicationEntity("PACS")
    node.require_called_aet = True
    for sop_class in RESULTS:
        node.add_supported_context(sop_class)
    server = node.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)]
    )
    assert server is not None
    receiver.port = server.server_address[1]
    try:
        yield receiver
    finally:
        node.shutdown()


def store(
    port: int, datasets: Sequence[Dataset], title: str = "MAMMOFLOW", caller: str = "MODALITY"
) -> list[Dataset | None]:
    """C-STORE objects, over one association, in their own syntax; the answers.

    None where there was none: the node has gone.
    """
    node = ApplicationEntity(caller)
    node.add_requested_context(Verification)
    for kind in sorted({(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}):
        node.add_requested_context(*kind)
    association = node.associate("127.0.0.1", port, ae_title=title)
    if not association.is_established:
        return [None for _ in datasets]
    answers: list[Dataset | None] = []
    for dataset in datasets:
        time.sleep(GAP)
        try:
            answers.append(association.send_c_store(dataset) or None)
        except (RuntimeError, ValueError):
            answers.append(None)
    if association.is_established:
        association.release()
    return answers


def is_answering(port: int) -> bool:
    """Whether a node answers to C-ECHO."""
    node = ApplicationEntity("MODALITY")
    node.add_requested_context(Verification)
    association = node.associate("127.0.0.1", port, ae_title="MAMMOFLOW")
    if not association.is_established:
        return False
    status = association.send_c_echo().get("Status")
    association.release()
    return bool(status == 0x0000)


def is_stored(answer: Dataset | None) -> bool:
    return answer is not None and answer.get("Status") == 0x0000


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def read_journal(spool: Path) -> list[dict[str, Any]]:
    file = spool / JOURNAL
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class ForkServer:
    """Forks processes that do what `_DO` names."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.listening"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def start(self, **what: Any) -> int:
        """Fork; the process's number."""
        return int(self.ask(**what)["pid"])

    def wait(self, pid: int) -> int:
        """Wait for the end of one; its status, -9 if it was killed."""
        return int(self.ask(do="wait", pid=pid)["status"])

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def _kill_at(number: int, folder: str) -> None:
    """Kill this process before its change of that number in a folder, counted from 1."""
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if (writes or event in _CHANGES) and folder in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _kill_after(step: str) -> None:
    """Kill this process when it is about to tell of a step, which is on the disk by then."""
    add = Journal.add

    def tell(self: Journal, told: str, **facts: object) -> None:
        if told == step:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, told, **facts)

    Journal.add = tell  # type: ignore[assignment,method-assign]


def _do_study(what: dict[str, Any]) -> None:
    """Take what is not acknowledged, answer and send, in one thread; tell what was taken.

    No view is suspicious, so that the report is all that is to be sent.
    """
    reader = replace(READER, operating_point=OperatingPoint(1.0, 2.0))
    folder = Path(what["spool"])
    to = Peer("127.0.0.1", what["port"], "PACS")
    settings = Settings(folder, to)
    journal = Journal(folder / JOURNAL)
    if "kill" in what:
        _kill_at(what["kill"], str(folder))
    with open_spool(folder, 2**30) as spool:
        for file in map(Path, what["files"]):
            ids = read_identity(file)
            spool.take(str(ids.study), str(ids.instance), file.read_bytes())
            with Path(what["taken"]).open("a") as taken:  # not in the spool
                taken.write(f"{file}\n")
        studies = spool.list_studies("predicting")
        for study in spool.find_quiet(time.time(), 0.0):
            spool.complete(study)
            studies.append(study)
        for study in studies:
            answer(study, reader, "cad", spool, journal, lambda: False)
        pauses = Pauses(0.1)
        while spool.list_studies("sending"):
            send_waiting(settings, spool, journal, pauses, threading.Event())


def _do_node(what: dict[str, Any]) -> None:
    """The whole node, until it is killed or told to end."""
    if "kill" in what:
        _kill_after(what["kill"])
    to = Peer("127.0.0.1", what["to"], "PACS")
    settings = Settings(Path(what["spool"]), to, port=what["port"], quiet=what["quiet"], pause=0.2)
    work(READER, settings, lambda _: None)


_DO = {"study": _do_study, "node": _do_node}


def main() -> None:
    """Fork a process for each line."""
    for line in sys.stdin:
        what = json.loads(line)
        if what["do"] == "wait":
            _, status = os.waitpid(what["pid"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    _DO[what["do"]](what)
                    status = 0
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
