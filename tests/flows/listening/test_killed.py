"""Killed at any moment, the node loses no image and answers none twice."""

import itertools
import os
import signal
from pathlib import Path

import pydicom
import pytest

from tests.support.listening import (
    ForkServer,
    ReceivingNode,
    is_answering,
    is_stored,
    store,
    wait_until,
)
from tests.support.toys import find_free_port

EVERY = 5  # changes of the disk from one kill to the next: each run has another first one


def references(report: pydicom.Dataset) -> set[str]:
    return {
        str(image.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }


def check_answered_once(receiver: ReceivingNode, spool: Path, files: list[Path]) -> None:
    """The last report has each image, an earlier one is its predecessor, what came twice is one."""
    reports = receiver.reports()
    instances = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in files}
    assert references(reports[-1]) == instances
    for earlier, later in itertools.pairwise(reports):
        (study,) = later.PredecessorDocumentsSequence
        (named,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert named.ReferencedSOPInstanceUID == earlier.SOPInstanceUID
    pictured = [came[0] for came in receiver.got.values() if came[0].Modality == "OT"]
    shown = [picture.SourceImageSequence[0].ReferencedSOPInstanceUID for picture in pictured]
    assert len(shown) == len(set(shown))
    for came in receiver.got.values():
        assert all(one == came[0] for one in came)
    left = [path.relative_to(spool).parts for path in spool.rglob("*.dcm")]
    assert {(parts[0], parts[2]) for parts in left} == {("answered", "headers")}
    assert not list((spool / "incoming").iterdir())


@pytest.mark.parametrize("first", range(1, EVERY + 1))
def test_a_kill_before_any_change_of_the_disk_loses_nothing(
    fork_server: ForkServer,
    women: list[list[Path]],
    receiver: ReceivingNode,
    tmp_path: Path,
    first: int,
) -> None:
    """The sender sends again what was not acknowledged, as senders do."""
    files, kill = women[0][:1], first
    while True:
        receiver.got.clear()
        spool, taken = tmp_path / f"{kill}", tmp_path / f"taken-{kill}"
        taken.touch()
        what = {"do": "study", "spool": str(spool), "port": receiver.port, "taken": str(taken)}
        status = fork_server.wait(fork_server.start(**what, files=[*map(str, files)], kill=kill))
        assert status in (0, -signal.SIGKILL)
        rest = [str(file) for file in files if str(file) not in taken.read_text()]
        assert fork_server.wait(fork_server.start(**what, files=rest)) == 0
        check_answered_once(receiver, spool, files)
        assert len(receiver.reports()) == 1
        if status == 0:
            assert kill > 3 * EVERY
            return
        kill += EVERY


@pytest.mark.parametrize("step", ["received", "complete", "predicted", "sent"])
def test_a_node_that_is_killed_at_a_step_goes_on_from_there(
    fork_server: ForkServer,
    women: list[list[Path]],
    receiver: ReceivingNode,
    tmp_path: Path,
    step: str,
) -> None:
    port, spool = find_free_port(), tmp_path / "spool"
    files = women[0][:2]
    datasets = [pydicom.dcmread(file) for file in files]
    what = {"do": "node", "spool": str(spool), "port": port, "to": receiver.port, "quiet": 1.0}
    pid = fork_server.start(**what, kill=step)
    wait_until(lambda: is_answering(port))
    stored = [is_stored(answer) for answer in store(port, datasets)]
    assert stored == [step != "received"] * 2
    assert fork_server.wait(pid) == -signal.SIGKILL
    pid = fork_server.start(**what)
    wait_until(lambda: is_answering(port))
    assert all(map(is_stored, store(port, datasets)))  # it sends all of them again
    wait_until(lambda: not list(spool.glob("[cps]*ing/*")))
    os.kill(pid, signal.SIGTERM)
    assert fork_server.wait(pid) == 0
    check_answered_once(receiver, spool, files)
    assert len(receiver.got) - len(receiver.reports()) == 2  # a picture of each view
