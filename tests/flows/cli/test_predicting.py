"""`mammoflow predict` on a registered model: what it prints and writes, and how it ends."""

import csv
import io
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import mlflow
import pydicom
import pytest
from typer.testing import CliRunner, Result

from flows.cli.app import app
from flows.tracking.names import MODEL
from mammo.base.atomic_files import write_json
from mammo.datasets.phantom.draw import write_phantoms
from mammo.serving.finding import NOTICE, read_schema
from tests.imports import ROOT
from tests.support.findings import cut_short, spoil
from tests.support.learning import write_untrained_predictor
from tests.support.listening import is_stored, read_journal, receiving, store, wait_until
from tests.support.serving import Server
from tests.support.small_project import store as open_registry
from tests.support.toys import environment, find_free_port

THRESHOLD = 1e-6  # every breast is positive


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two versions: 1 from before there was an operating point, 2 is champion."""
    root = tmp_path_factory.mktemp("registry")
    client = open_registry(root)
    for version in (1, 2):
        predictor = write_untrained_predictor(root / f"predictor{version}")
        if version == 2:
            scores = {"threshold": {"breast": THRESHOLD, "image": 0.5}}
            write_json(predictor / "evaluate/metrics.json", scores)
        with mlflow.start_run():
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(ROOT / "flows/tracking/served_model.py"),
                artifacts={"predictor": str(predictor)},
                code_paths=[str(ROOT / "mammo")],
                pip_requirements=[],
            )
        tags = {"snapshot_digest": "d1ge57", "git_commit": "c0mm17"}
        mlflow.register_model(info.model_uri, MODEL, tags=tags)
    client.set_registered_model_alias(MODEL, "champion", "2")
    write_phantoms(root / "data", women=2, seed=3, long_side=256)
    (root / "data" / "broken.dcm").write_bytes(b"no DICOM")
    return root


@pytest.fixture(autouse=True)
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_registry(root)
    monkeypatch.chdir(root)


def predict(*arguments: str, status: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, ["predict", *arguments], input=stdin)
    assert result.exit_code == status, result.output
    return result


def test_a_folder_is_predicted_and_written_and_a_bad_file_named(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = predict("data", "--out", str(out), "--format", "json", status=1)
    assert "cannot be read: data/broken.dcm: it is not a DICOM file" in result.stderr
    assert "3 files in the folders are no DICOM files" in result.stderr  # three tables
    exams = json.loads(result.stdout)
    assert [len(exam["breasts"]) for exam in exams] == [2, 2]
    assert {exam["decision"] for exam in exams} == {"positive"}
    assert exams[0]["operating_point"]["threshold"] == THRESHOLD
    assert exams[0]["model"]["version"] == 2
    assert exams[0]["model"]["snapshot"] == "d1ge57"
    assert len(list(out.glob("*/*.png"))) == 8
    assert not list(out.rglob(".*"))  # nothing half-written
    for exam in exams:
        written = json.loads((out / exam["exam"] / "exam.json").read_text())
        jsonschema.Draft202012Validator(read_schema()).validate(written)
        for breast in written["breasts"]:
            for image in breast["images"]:
                assert (out / exam["exam"] / image.pop("heatmap")).is_file()
        assert written == exam


@pytest.mark.parametrize(
    ("report", "name"),
    [("cad", "mammography-cad-sr.dcm"), ("1500", "measurement-report-sr.dcm")],
)
def test_each_exam_is_reported_as_dicom_in_its_own_study(
    root: Path, tmp_path: Path, report: str, name: str
) -> None:
    woman = min((root / "data/train_images").iterdir())
    source = pydicom.dcmread(next(woman.glob("*.dcm")), stop_before_pixels=True)
    predict(str(woman), "--dicom", str(tmp_path / "sr"), "--sr", report)
    [exam] = (tmp_path / "sr").iterdir()
    written = {file.name: pydicom.dcmread(file) for file in exam.iterdir()}
    assert written[name].StudyInstanceUID == source.StudyInstanceUID
    captures = [one for file, one in written.items() if file.startswith("capture-")]
    assert len(captures) == 4  # every breast is positive, and every view suspicious
    heat = captures[0].pixel_array.astype(int)
    assert (heat[..., 0] != heat[..., 2]).any()  # it is coloured


@pytest.mark.parametrize(("unread", "summary"), [(1, "Not all"), (4, "No")])
def test_a_report_tells_of_files_that_could_not_be_read(
    root: Path, tmp_path: Path, unread: int, summary: str
) -> None:
    views = sorted(min((root / "data/train_images").iterdir()).glob("*.dcm"))
    (tmp_path / "exam").mkdir()
    for number, view in enumerate(views):
        copy = tmp_path / "exam" / view.name
        if number < unread:
            cut_short(view, copy)
        else:
            copy.write_bytes(view.read_bytes())
    result = predict(str(tmp_path / "exam"), "--dicom", str(tmp_path / "sr"), status=1)
    assert result.stderr.count("cannot be read: ") == unread
    [exam] = (tmp_path / "sr").iterdir()
    report = pydicom.dcmread(exam / "mammography-cad-sr.dcm")
    assert (
        report.ContentSequence[2]
        .ConceptCodeSequence[0]
        .CodeMeaning.startswith(f"{summary} algorithms succeeded")
    )
    assert len(report.ContentSequence[1].ContentSequence) == 4
    assert len(list(exam.glob("capture-*"))) == 4 - unread


def test_no_report_is_made_of_a_version_that_decides_nothing(tmp_path: Path) -> None:
    result = predict("data", "--model", "1", "--dicom", str(tmp_path / "sr"), status=2)
    assert "version 1 was registered without an operating point" in result.stderr
    assert not (tmp_path / "sr").exists()


def test_a_list_on_stdin_becomes_rows_of_a_table_for_programs(root: Path) -> None:
    files = sorted(map(str, Path("data/train_images").rglob("*.dcm")))[:2]
    result = predict("-", "--format", "csv", stdin="\n".join(files))
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert sorted(row["file"] for row in rows) == files  # by exam and breast
    assert {row["notice"] for row in rows} == {NOTICE}
    assert all(0 < float(row["probability"]) < 1 for row in rows)
    assert "2.25." not in result.stdout
    named = predict("-", "--format", "csv", "--identified", stdin=files[0]).stdout
    assert next(csv.DictReader(io.StringIO(named)))["exam"].startswith("2.25.")


def test_a_version_without_an_operating_point_answers_and_decides_nothing() -> None:
    woman = str(min(Path("data/train_images").iterdir()))
    result = predict(woman, "--model", "1")
    assert "registered without an operating point: nothing is decided" in result.stdout
    assert "positive" not in result.stdout
    assert NOTICE in result.stdout
    assert "version 1, snapshot d1ge57" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "nothing: there is no such file or folder"),
        (("data/train.csv", "--model", "9"), "has no mammogram-classifier 9"),
        (("data", "--model", "@challenger"), "has no mammogram-classifier @challenger"),
        (("data", "--out", "data/train.csv"), "no file can be written there"),
        (("data", "--out", "both", "--dicom", "./both"), "--out and --dicom need a folder each"),
    ],
)
def test_what_cannot_begin_is_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    result = predict(*arguments, status=2)
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


def test_a_new_champion_is_taken_up_without_losing_a_request(root: Path) -> None:
    client = open_registry(root)
    client.set_registered_model_alias(MODEL, "champion", "1")
    port = find_free_port()
    command = [sys.executable, "-m", "flows.cli", "serve", "--follow", "--port", f"{port}"]
    process = subprocess.Popen(command, cwd=root, env=environment(), stdout=subprocess.PIPE)
    served = Server(f"http://127.0.0.1:{port}", process)
    dicom = next(Path("data/train_images").rglob("*.dcm")).read_bytes()
    try:
        assert process.stdout is not None
        assert b"version 1 answers at" in process.stdout.readline()
        decisions: list[str | None] = []

        def ask_until_it_decides() -> None:
            deadline = time.monotonic() + 120
            while not (decisions and decisions[-1]):
                status, body = served.post(dicom)
                assert status == 200
                decisions.append(json.loads(body)["exams"][0]["decision"])
                assert time.monotonic() < deadline

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask_until_it_decides) for _ in range(3)]
            client.set_registered_model_alias(MODEL, "champion", "2")
            for one in asking:
                one.result()
        assert decisions[0] is None  # version 1 has no operating point
        assert json.loads(served.get("/version")[1])["model"]["version"] == 2
    finally:
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGTERM)


def test_a_study_that_is_sent_to_the_node_comes_back_as_a_report(
    root: Path, tmp_path: Path
) -> None:
    woman = min((root / "data/train_images").iterdir())
    datasets = [pydicom.dcmread(file) for file in sorted(woman.glob("*.dcm"))]
    spoil(datasets[3])
    with receiving() as receiver:
        port, spool = find_free_port(), tmp_path / "spool"
        command = [sys.executable, "-m", "flows.cli", "listen", str(spool), "--port", f"{port}"]
        command += ["--return", str(receiver.address), "--calling", "MODALITY", "--quiet", "1"]
        process = subprocess.Popen(command, cwd=root, env=environment(), stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert b"MAMMOFLOW listens at 127.0.0.1" in process.stdout.readline()
            assert all(map(is_stored, store(port, datasets)))
            wait_until(lambda: list(spool.glob("answered/*")))
        finally:
            process.terminate()
            assert process.wait(60) == 0
        (report,) = receiver.reports()
        assert report.StudyInstanceUID == datasets[0].StudyInstanceUID
        steps = [line["step"] for line in read_journal(spool)]
        assert steps[:6] == ["started", *["received"] * 4, "complete"]
        assert steps[6:] == ["unread", "predicted", *["sent"] * 4, "answered", "ended"]
        library = report.ContentSequence[1].ContentSequence
        assert len(library) == 4  # the one that could not be read is said to be there


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--return", "pacs"), "name the node as HOST:PORT:AE"),
        (("--return", "pacs:104:A\\B"), "is no AE title"),
        (("--return", "pacs:104:PACS", "--disk", "20"), "name a size such as 500M"),
        (("--return", "pacs:104:PACS", "--model", "1"), "without an operating point"),
    ],
)
def test_a_node_that_cannot_begin_is_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = CliRunner().invoke(app, ["listen", str(tmp_path / "spool"), *arguments])
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "spool").exists()


def test_what_cannot_be_served_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, words in (
            (("--port", f"{port}"), "cannot be used"),
            (("--follow", "--model", "2"), "--follow needs an alias"),
            (("--port", "0", "--model", "9"), "has no mammogram-classifier 9"),
        ):
            result = CliRunner().invoke(app, ["serve", *arguments])
            assert result.exit_code == 2, result.output
            assert words in result.stderr
            assert len(result.stderr.splitlines()) == 1
