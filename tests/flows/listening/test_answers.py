"""What is answered: once a study is quiet, on all its images, again when one comes late."""

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from flows.listening.answer import Reader, answer
from flows.listening.deliver import Pauses, Peer, parse_address
from flows.listening.journal import JOURNAL, Journal
from flows.listening.record import SeenImage, StudyRecord, read_record, write_record
from flows.listening.spool import Spool, open_spool
from flows.listening.work import Settings, answer_complete, send_waiting
from mammo.base.errors import UserError
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom_results.write import Kind
from mammo.imaging.geometry import Box
from mammo.serving.finding import ImageFinding, Peak, Region
from mammo.serving.identity import read_identity
from mammo.serving.intake import Refusal
from tests.flows.listening.test_killed import references
from tests.support.findings import spoil
from tests.support.listening import MODEL, READER, ReceivingNode, examine, read_journal
from tests.support.markers import needles
from tests.support.toys import find_free_port


class Node:
    """A node without its ears: images are put into its spool."""

    def __init__(self, spool: Spool, to: Peer, reader: Reader = READER, kind: Kind = "cad"):
        self.spool, self.reader = spool, reader
        self.settings = Settings(spool.folder, to, quiet=0.0, kind=kind)
        self.journal = Journal(spool.folder / JOURNAL)
        self.over = threading.Event()
        self.pauses = Pauses()

    def take(self, *files: Path) -> None:
        for file in files:
            ids = read_identity(file)
            self.spool.take(str(ids.study), str(ids.instance), file.read_bytes())

    def look(self) -> None:
        answer_complete(self.reader, self.settings, self.spool, self.journal, self.over)

    def send(self) -> None:
        send_waiting(self.settings, self.spool, self.journal, self.pauses, self.over)

    def steps(self) -> list[str]:
        return [line["step"] for line in read_journal(self.spool.folder)]


@pytest.fixture
def node(receiver: ReceivingNode, tmp_path: Path) -> Iterator[Node]:
    with open_spool(tmp_path / "spool", 2**30) as spool:
        yield Node(spool, receiver.address)


def uids(files: Sequence[Path]) -> set[str]:
    return {str(read_identity(file).instance) for file in files}


def test_a_study_is_answered_in_its_own_study_and_its_images_go(
    node: Node, receiver: ReceivingNode, women: list[list[Path]]
) -> None:
    node.take(*women[0], *women[1])
    node.look()
    node.send()
    reports = receiver.reports()
    assert {frozenset(references(report)) for report in reports} == {
        frozenset(uids(woman)) for woman in women
    }
    for report in reports:
        source = next(w for w in women if uids(w) == references(report))
        assert report.StudyInstanceUID == read_identity(source[0]).study
        assert "PredecessorDocumentsSequence" not in report
    assert node.steps() == [
        *("complete", "predicted") * 2,
        *(*("sent",) * 5, "answered") * 2,
    ]
    # What is left is small, and has no pixels.
    assert all("PixelData" not in pydicom.dcmread(f) for f in node.spool.folder.rglob("*.dcm"))
    assert node.spool.measure() < 100_000


def test_a_study_is_complete_when_it_was_quiet_for_so_long(
    node: Node, women: list[list[Path]]
) -> None:
    node.take(women[0][0])
    later = time.time() + 30
    assert node.spool.find_quiet(later, 60.0) == []
    study = str(read_identity(women[0][0]).study)
    assert node.spool.find_quiet(later + 31, 60.0) == [study]
    node.take(women[0][1])
    os.utime(
        node.spool.folder_of("collecting", study) / f"{read_identity(women[0][1]).instance}.dcm",
        (later, later),
    )
    assert node.spool.find_quiet(later + 31, 60.0) == []


@pytest.mark.parametrize("kind", ["cad", "1500"])
def test_a_late_image_makes_a_second_report_on_all_images_that_names_the_first(
    receiver: ReceivingNode, women: list[list[Path]], tmp_path: Path, kind: Kind
) -> None:
    with open_spool(tmp_path / "spool", 2**30) as spool:
        node = Node(spool, receiver.address, kind=kind)
        for files in (women[0][:3], women[0][3:], women[0]):
            node.take(*files)
            node.look()
            node.send()
    first, second = receiver.reports()  # and no third: the last round had nothing new
    assert references(first) == uids(women[0][:3])
    assert references(second) == uids(women[0])
    (study,) = second.PredecessorDocumentsSequence
    assert study.StudyInstanceUID == first.StudyInstanceUID
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    (document,) = series.ReferencedSOPSequence
    assert document.ReferencedSOPClassUID == first.SOPClassUID
    assert document.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert len(receiver.got) == 2 + 4  # each view has its picture once
    numbers = [(c[0].SeriesInstanceUID, c[0].InstanceNumber) for c in receiver.got.values()]
    assert len(set(numbers)) >= 5  # of one series no two pictures have one number


def test_a_report_that_waits_goes_before_the_study_is_looked_at_again(
    node: Node, receiver: ReceivingNode, women: list[list[Path]]
) -> None:
    node.take(*women[0][:3])
    node.look()
    node.take(women[0][3])
    node.look()
    assert node.steps().count("complete") == 1
    node.send()
    node.look()
    node.send()
    assert [len(references(report)) for report in receiver.reports()] == [3, 4]


def test_another_model_reports_on_what_it_has_seen_and_names_no_predecessor(
    node: Node, receiver: ReceivingNode, women: list[list[Path]]
) -> None:
    node.take(*women[0][:3])
    node.look()
    node.send()
    node.reader = replace(READER, model=replace(MODEL, version=4))
    node.take(women[0][3])
    node.look()
    node.send()
    second = receiver.reports()[1]
    assert references(second) == uids(women[0][3:])
    assert "PredecessorDocumentsSequence" not in second


def examine_if_possible(files: Sequence[Path]) -> Iterator[ImageFinding | Refusal]:
    for file in files:
        try:
            yield from examine([file])
        except UnreadableDicom as error:
            yield Refusal(error.reason)


def say(report: Dataset, name: str) -> str:
    """The value of the first item of that name, or the words of a text."""
    for item in report.iterall():
        for below in item.value if item.keyword == "ContentSequence" else ():
            names = below.get("ConceptNameCodeSequence")
            if names and names[0].CodeMeaning == name:
                found = below.get("ConceptCodeSequence")
                return str(found[0].CodeMeaning if found else below.TextValue)
    raise AssertionError(name)


@pytest.fixture
def careful(node: Node) -> Node:
    """A node whose model meets files that cannot be read."""
    node.reader = replace(READER, examine=examine_if_possible)  # type: ignore[arg-type]
    return node


def spoiled(file: Path, folder: Path) -> Path:
    path = folder / file.name
    spoil(pydicom.dcmread(file)).save_as(path)
    return path


def test_an_image_that_cannot_be_read_costs_itself_and_the_report_says_so(
    careful: Node, receiver: ReceivingNode, women: list[list[Path]], tmp_path: Path
) -> None:
    broken = spoiled(women[0][0], tmp_path)
    for files in ([broken, *women[0][1:]], [broken], women[0]):
        careful.take(*files)  # it is tried again, the others are not
        careful.look()
        careful.send()
    told = [line for line in read_journal(careful.spool.folder) if "images" in line]
    assert [(line["step"], line["images"], line.get("unread")) for line in told] == [
        *(("complete", 4, None), ("predicted", 3, 1)),
        ("complete", 1, None),  # and no second report: it would say the same
        *(("complete", 1, None), ("predicted", 4, None)),
    ]
    first, second = receiver.reports()
    assert references(first) == references(second) == uids(women[0])
    summary = "CAD Processing and Findings Summary"
    assert say(first, summary) == "Not all algorithms succeeded; with findings"
    assert "1 image could not be read" in say(first, "Impression Description")
    assert say(second, summary) == "All algorithms succeeded; with findings"
    (study,) = second.PredecessorDocumentsSequence
    (document,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert document.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert len(receiver.got) == 2 + 4  # each view has its picture once


def test_a_late_image_that_cannot_be_read_is_told_in_a_second_report(
    careful: Node, receiver: ReceivingNode, women: list[list[Path]], tmp_path: Path
) -> None:
    for files in (women[0][1:], [spoiled(women[0][0], tmp_path)]):
        careful.take(*files)
        careful.look()
        careful.send()
    first, second = receiver.reports()
    assert references(first) == uids(women[0][1:])
    assert references(second) == uids(women[0])
    assert "could not be read" in say(second, "Impression Description")
    assert "PredecessorDocumentsSequence" in second


def test_a_study_of_which_nothing_can_be_read_is_answered_by_a_report_that_says_so(
    careful: Node, receiver: ReceivingNode, women: list[list[Path]], tmp_path: Path
) -> None:
    careful.take(*(spoiled(file, tmp_path) for file in women[0]))
    careful.look()
    careful.send()
    (report,) = (came[0] for came in receiver.got.values())
    assert references(report) == uids(women[0])
    summary = say(report, "CAD Processing and Findings Summary")
    assert summary == "No algorithms succeeded; without findings"
    assert careful.steps() == ["complete", *["unread"] * 4, "predicted", "sent", "answered"]


def test_a_full_disk_keeps_a_study_where_it_is(
    node: Node, women: list[list[Path]], receiver: ReceivingNode
) -> None:
    def run_out(files: Sequence[Path]) -> Iterator[ImageFinding]:
        raise OSError(28, "No space left on device")

    node.settings = replace(node.settings, pause=0.0)
    node.reader = replace(READER, examine=run_out)
    node.take(*women[0][:2])
    node.look()
    node.take(*women[0][2:])
    node.look()
    assert node.steps() == ["complete", "delayed", "delayed"]
    node.reader = READER
    node.look()
    node.send()
    assert len(receiver.reports()) == 1


def test_a_study_at_which_the_program_fails_is_put_aside_and_stops_no_other(
    node: Node, receiver: ReceivingNode, women: list[list[Path]]
) -> None:
    def fail_at_one(files: Sequence[Path]) -> Iterator[ImageFinding]:
        if files[0].stem in uids(women[0]):
            raise ZeroDivisionError
        return examine(files)

    node.reader = replace(READER, examine=fail_at_one)
    node.take(*women[0], *women[1])
    node.look()
    node.send()
    (report,) = receiver.reports()
    assert references(report) == uids(women[1])
    (study,) = node.spool.list_studies("failed")
    assert len(list(node.spool.folder_of("failed", study).iterdir())) == 4
    assert "failed" in node.steps()


def test_what_the_receiver_does_not_take_is_sent_again_after_growing_pauses(
    node: Node, receiver: ReceivingNode, women: list[list[Path]], tmp_path: Path
) -> None:
    node.take(*women[0])
    node.look()
    receiver.status = 0xA700
    node.send()
    node.send()  # it pauses
    assert node.steps().count("not sent") == 1
    receiver.status = 0x0000
    node.pauses = Pauses()  # as after a new start
    node.send()
    assert len(receiver.reports()) == 1
    assert node.steps()[-1] == "answered"


def test_a_receiver_that_is_not_there_is_waited_for(
    women: list[list[Path]], tmp_path: Path
) -> None:
    with open_spool(tmp_path / "spool", 2**30) as spool:
        node = Node(spool, Peer("127.0.0.1", find_free_port(), "PACS"))
        node.take(*women[0], *women[1])
        node.look()
        for _ in range(3):
            node.send()
        (told,) = [line for line in read_journal(spool.folder) if line["step"] == "not sent"]
        assert "does not answer" in told["reason"]
        assert told["again_in"] == 10.0
        assert len(spool.list_studies("sending")) == 2


def test_pauses_double_up_to_an_hour_and_end() -> None:
    pauses = Pauses()
    found, now = [], 0.0
    for _ in range(11):
        found.append(pauses.lengthen("x", now))
        assert not pauses.is_due("x", now + found[-1] - 1)
        now += found[-1]
        assert pauses.is_due("x", now)
    assert found[:3] == [10, 20, 40]
    assert found[-2:] == [3600, 3600]
    pauses.end("x")
    assert pauses.is_due("x", 0.0)


def test_the_journal_names_nobody_and_no_uid(
    node: Node, receiver: ReceivingNode, women: list[list[Path]]
) -> None:
    node.take(*women[0])
    node.look()
    node.send()
    header = pydicom.dcmread(women[0][0], stop_before_pixels=True)
    written = (node.spool.folder / JOURNAL).read_bytes()
    assert b"2.25." not in written
    for value in (header.PatientID, header.PatientName, header.StudyInstanceUID):
        assert str(value).encode() not in written
    assert not [needle for needle in needles() if needle in written]
    for line in written.splitlines():
        assert {"time", "step"} <= set(json.loads(line))


def test_what_was_answered_long_ago_is_forgotten(node: Node, women: list[list[Path]]) -> None:
    node.take(*women[0])
    node.look()
    node.send()
    (study,) = node.spool.list_studies("answered")
    assert node.spool.forget(time.time() - 60) == []
    assert node.spool.forget(time.time() + 60) == [study]
    assert node.spool.list_studies("answered") == []


def test_a_study_is_left_as_it_was_if_the_node_ends_meanwhile(
    node: Node, women: list[list[Path]]
) -> None:
    node.take(*women[0])
    (study,) = node.spool.list_studies("collecting")
    node.spool.complete(study)
    answer(study, READER, "cad", node.spool, node.journal, lambda: True)
    assert node.spool.list_studies("predicting") == [study]
    node.look()
    assert node.spool.list_studies("sending") == [study]


def test_a_record_is_read_as_it_was_written(women: list[list[Path]], tmp_path: Path) -> None:
    (found,) = examine(women[0][:1])
    region = Region(0.5, ((1.0, 2.0), (3.25, 4.0), (5.0, 6.5)))
    full = replace(
        found, source=None, box=Box(0.1, 2, 3, 4), peak=Peak(1.5, 2.5, 0.75), region=region
    )
    record = StudyRecord({"1.2": SeenImage(MODEL, full), "1.3": SeenImage(MODEL, None)}, {})
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record
    assert read_record(tmp_path / "none.json") == StudyRecord()


def test_an_address_has_host_port_and_title() -> None:
    assert parse_address("pacs.local:104:PACS") == Peer("pacs.local", 104, "PACS")
    assert str(parse_address("[::1]:104:PACS")) == "[::1]:104:PACS"
    for wrong in ("pacs", "pacs:104", "pacs:x:PACS", "pacs:0:PACS", ":104:PACS", "[::1]:104"):
        with pytest.raises(UserError):
            parse_address(wrong)
