"""The files of an exam: whole or not at all, and the same bytes each time."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pydicom
import pytest

from mammo.base.errors import UserError
from mammo.dicom_results.objects import WrittenReport
from mammo.dicom_results.source import strip_pixels
from mammo.dicom_results.write import REPORTS, Kind, write_results
from mammo.serving.finding import ExamFinding, Model
from tests.imports import ROOT
from tests.support.findings import make_finding, sources_of

KINDS: tuple[Kind, ...] = ("cad", "1500")


def written(exam: ExamFinding, folder: Path, kind: Kind = "cad") -> dict[str, bytes]:
    results = write_results(exam, sources_of(exam), folder, kind)
    return {path.name: path.read_bytes() for path in results.iterdir()}


def uids_of(files: dict[str, bytes], keyword: str, folder: Path) -> set[str]:
    found = set()
    for content in files.values():
        (folder / "read.dcm").write_bytes(content)
        found.add(str(pydicom.dcmread(folder / "read.dcm")[keyword].value))
    return found


def test_an_exam_has_a_folder_named_by_its_key_and_files_by_what_is_in_them(
    views: list[Path], tmp_path: Path
) -> None:
    exam = make_finding(views, [0.9, 0.9, 0.9, 0.9])
    folder = write_results(exam, sources_of(exam), tmp_path)
    assert folder == tmp_path / exam.key
    assert sorted(path.name for path in folder.iterdir()) == [
        "capture-L-CC-1.dcm",
        "capture-L-MLO-2.dcm",
        "capture-R-CC-1.dcm",
        "capture-R-MLO-2.dcm",
        "mammography-cad-sr.dcm",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_exam_gives_the_same_bytes_in_another_process(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    exam = make_finding(views, [0.9, 0.1, 0.9, 0.1])
    first = written(exam, tmp_path / "first", kind)
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.support.findings import make_finding, sources_of\n"
        "from mammo.dicom_results.write import write_results\n"
        "exam = make_finding([Path(file) for file in sys.argv[3:]], [0.9, 0.1, 0.9, 0.1])\n"
        "write_results(exam, sources_of(exam), Path(sys.argv[1]), sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "second"), kind, *map(str, views)]
    subprocess.run(command, cwd=ROOT, check=True)
    second = {path.name: path.read_bytes() for path in (tmp_path / "second" / exam.key).iterdir()}
    assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_another_model_or_another_result_has_other_uids(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    exam = make_finding(views, [0.9, 0.1, 0.9, 0.1])
    first = written(exam, tmp_path, kind)
    changed = written(make_finding(views, [0.8, 0.1, 0.8, 0.1]), tmp_path, kind)
    newer = Model("mammogram-classifier", 4, "5e" * 32, "c0" * 20, "ab" * 32)
    other = written(make_finding(views, [0.9, 0.1, 0.9, 0.1], model=newer), tmp_path, kind)

    def uids(files: dict[str, bytes], keyword: str) -> set[str]:
        return uids_of(files, keyword, tmp_path)

    assert len(uids(first, "SOPInstanceUID")) == len(first) == 3
    assert not uids(first, "SOPInstanceUID") & uids(changed, "SOPInstanceUID")
    assert uids(first, "SeriesInstanceUID") == uids(changed, "SeriesInstanceUID")
    assert not uids(first, "SOPInstanceUID") & uids(other, "SOPInstanceUID")
    assert not uids(first, "SeriesInstanceUID") & uids(other, "SeriesInstanceUID")


@pytest.mark.parametrize("kind", KINDS)
def test_every_uid_of_ours_is_a_uuid_under_its_root(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    files = written(make_finding(views, [0.9, 0.1, 0.9, 0.1]), tmp_path, kind)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        for uid in uids_of(files, keyword, tmp_path):
            assert uid.startswith("2.25.")
            assert int(uid[5:]) < 2**128
            assert len(uid) <= 64


@pytest.mark.parametrize("kind", KINDS)
def test_the_results_bear_the_studys_date_or_the_callers(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    exam = make_finding(views, [0.9, 0.1, 0.9, 0.1])
    source = pydicom.dcmread(views[0], stop_before_pixels=True)
    for path in write_results(exam, sources_of(exam), tmp_path, kind).iterdir():
        assert pydicom.dcmread(path).ContentDate == source.StudyDate
    made = datetime(2026, 11, 27, 18, 30, 5)
    for path in write_results(exam, sources_of(exam), tmp_path, kind, made).iterdir():
        result = pydicom.dcmread(path)
        assert (result.ContentDate, result.ContentTime) == ("20261127", "183005")
        assert result.StudyDate == source.StudyDate
        assert "InstanceCreationDate" not in result


def test_a_second_result_takes_the_place_of_the_first(views: list[Path], tmp_path: Path) -> None:
    positive = written(make_finding(views, [0.9, 0.1, 0.9, 0.1]), tmp_path)
    negative = written(make_finding(views, [0.1, 0.1, 0.1, 0.1]), tmp_path)
    assert len(positive) == 3
    assert set(negative) == {"mammography-cad-sr.dcm"}


def test_a_folder_that_holds_anything_else_is_not_replaced(
    views: list[Path], tmp_path: Path
) -> None:
    """Such as heatmaps and exam.json, in the folder of the same exam."""
    exam = make_finding(views, [0.9, 0.1, 0.9, 0.1])
    written(exam, tmp_path)
    document = tmp_path / exam.key / "exam.json"
    document.write_text("{}")
    with pytest.raises(UserError, match=r"it holds exam\.json"):
        write_results(exam, sources_of(exam), tmp_path)
    assert document.exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_source_that_is_gone_is_named_and_the_earlier_results_stay(
    views: list[Path], tmp_path: Path
) -> None:
    copies = []
    for number, view in enumerate(views):
        copies.append(tmp_path / f"{number}.dcm")
        copies[-1].write_bytes(view.read_bytes())
    exam = make_finding(copies, [0.9, 0.1, 0.9, 0.1])
    before = written(exam, tmp_path / "out")
    copies[2].unlink()
    with pytest.raises(UserError, match=r"2\.dcm: there is no such file"):
        write_results(exam, sources_of(exam), tmp_path / "out")
    after = {path.name: path.read_bytes() for path in (tmp_path / "out" / exam.key).iterdir()}
    assert before == after
    assert [path.name for path in (tmp_path / "out").iterdir()] == [exam.key]


def test_sources_may_be_contents(views: list[Path], tmp_path: Path) -> None:
    exam = make_finding(views, [0.9, 0.1, 0.9, 0.1])
    contents: dict[int, Path | bytes] = {
        number: view.read_bytes() for number, view in enumerate(views, 1)
    }
    results = write_results(exam, contents, tmp_path / "contents")
    found = {path.name: path.read_bytes() for path in results.iterdir()}
    assert found == written(exam, tmp_path / "paths")


def test_a_later_report_names_the_one_whose_content_it_holds(
    views: list[Path], tmp_path: Path
) -> None:
    exam = make_finding(views, [0.1] * 4)
    earlier = WrittenReport("1.2.840.10008.5.1.4.1.1.88.50", "2.25.1", "2.25.2", "2.25.3")
    for kind in KINDS:
        folder = write_results(exam, sources_of(exam), tmp_path, kind, predecessors=[earlier])
        (study,) = pydicom.dcmread(folder / REPORTS[kind]).PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        (document,) = series.ReferencedSOPSequence
        assert study.StudyInstanceUID == "2.25.3"
        assert series.SeriesInstanceUID == "2.25.2"
        assert document.ReferencedSOPClassUID == earlier.sop_class
        assert document.ReferencedSOPInstanceUID == "2.25.1"


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_can_be_made_of_headers_whose_pixels_are_gone(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    exam = make_finding(views, [0.9] * 4)
    whole = write_results(exam, sources_of(exam), tmp_path / "whole", kind)
    stripped: dict[int, Path | bytes] = {
        number: strip_pixels(Path(str(path))) for number, path in sources_of(exam).items()
    }
    assert all(len(header) < 3000 for header in stripped.values() if isinstance(header, bytes))
    bare = write_results(exam, stripped, tmp_path / "bare", kind, pictured=())
    assert [file.name for file in bare.iterdir()] == [REPORTS[kind]]
    assert (bare / REPORTS[kind]).read_bytes() == (whole / REPORTS[kind]).read_bytes()
    last = exam.images[-1].number
    one = write_results(exam, sources_of(exam), tmp_path / "one", kind, pictured={last})
    names = {file.name for file in one.iterdir()}
    assert len(names) == 2
    assert names < {file.name for file in whole.iterdir()}  # with the number that it had
