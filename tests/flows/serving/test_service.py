"""The service answers as the model does, one or many at once, and refuses what is no exam."""

import base64
import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest

from benchmarks.hostile import ask_by_openapi, send_damaged
from mammo.datasets.phantom.draw import draw_phantom_dicom, write_phantoms
from mammo.serving.finding import NOTICE, read_schema
from mammo.serving.predictor import Predictor, load_predictor
from tests.support.fuzz_dicom import seeds
from tests.support.learning import write_untrained_predictor
from tests.support.serving import BYTES, Server, make_form, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_predictor(tmp_path_factory.mktemp("predictor"))


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return load_predictor(folder)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder) as server:
        yield server


@pytest.fixture(scope="module")
def dicoms() -> list[bytes]:
    return [draw_phantom_dicom(seed=seed) for seed in range(4)]


def test_a_file_as_the_body_is_answered_by_the_schema_with_the_models_numbers(
    server: Server, predictor: Predictor, dicoms: list[bytes]
) -> None:
    status, body = server.post(dicoms[0])
    assert status == 200
    answer = json.loads(body)
    (exam,) = answer["exams"]
    jsonschema.Draft202012Validator(read_schema()).validate(exam)
    (image,) = exam["breasts"][0]["images"]
    assert image["probability"] == predictor.predict(dicoms[0]).probability
    assert "heatmap" not in image
    assert (answer["notice"], answer["unread"]) == (NOTICE, [])
    assert exam["decision"] is None  # this predictor has no operating point


def test_the_files_of_a_form_become_exams_and_bad_ones_cost_themselves(
    server: Server, tmp_path: Path
) -> None:
    write_phantoms(tmp_path / "data", women=2, seed=3, long_side=256)
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.rglob("*.dcm"))[:5]}
    status, body = server.post(*make_form(files | {"bad.dcm": b"no DICOM"}))
    assert status == 200
    answer = json.loads(body)
    assert answer["unread"] == [{"number": 6, "reason": "it is not a DICOM file"}]
    sides = [[breast["laterality"] for breast in exam["breasts"]] for exam in answer["exams"]]
    assert sorted(map(len, sides)) == [1, 2]
    images = [i for exam in answer["exams"] for b in exam["breasts"] for i in b["images"]]
    assert sorted(image["number"] for image in images) == [1, 2, 3, 4, 5]


def test_a_file_that_is_sent_twice_counts_once(server: Server, dicoms: list[bytes]) -> None:
    status, body = server.post(*make_form({"a": dicoms[0], "b": dicoms[0]}))
    answer = json.loads(body)
    ((breast,),) = (exam["breasts"] for exam in answer["exams"])
    assert (status, len(breast["images"])) == (200, 1)
    reason = "it has the SOPInstanceUID of file 1: it is a copy"
    assert answer["unread"] == [{"number": 2, "reason": reason}]


def test_a_heatmap_is_had_as_a_picture_or_in_the_json(
    server: Server, predictor: Predictor, dicoms: list[bytes]
) -> None:
    expected = predictor.predict(dicoms[1]).heatmap
    assert server.post(dicoms[1], accept="image/png") == (200, expected)
    _, body = server.post(dicoms[1], query="?heatmap=1")
    (image,) = json.loads(body)["exams"][0]["breasts"][0]["images"]
    assert base64.b64decode(image["heatmap"]) == expected
    two = make_form({"a": dicoms[0], "b": dicoms[1]})
    assert server.post(*two, accept="image/png")[0] == 400


def test_ids_are_said_only_if_asked_for(server: Server, dicoms: list[bytes]) -> None:
    _, body = server.post(dicoms[0])
    assert b"uid" not in body.replace(b"sop_class_uid", b"")
    _, body = server.post(dicoms[0], query="?identified=1")
    assert json.loads(body)["exams"][0]["study_uid"].startswith("2.25.")


def test_eight_clients_get_the_bytes_of_one(server: Server, dicoms: list[bytes]) -> None:
    alone = [server.post(dicom, query="?heatmap=1") for dicom in dicoms]
    assert len(set(alone)) == len(dicoms)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda d: server.post(d, query="?heatmap=1"), dicoms * 6))
    assert together == alone * 6


@pytest.mark.parametrize(
    ("body", "kind", "query", "status", "words"),
    [
        (b"", "application/dicom", "", 400, "empty"),
        (b"no DICOM", "application/dicom", "", 422, "file 1: it is not a DICOM file"),
        (b"no DICOM", "text/plain", "", 415, "application/dicom"),
        (b"no DICOM", "", "", 415, "application/dicom"),
        (b"x", "multipart/form-data", "", 400, "form"),
        (b"x", "multipart/form-data; boundary=b", "", 400, "form"),
        (*make_form({}), "", 400, "form"),
        (*make_form({f"{n}": b"x" for n in range(9)}), "", 400, "Too many files"),
        (b"x", "application/dicom", "?heatmap=perhaps", 422, "heatmap"),
        (bytes(BYTES + 1), "application/dicom", "", 413, "larger"),
    ],
)
def test_what_is_no_exam_gets_a_sentence(
    server: Server, body: bytes, kind: str, query: str, status: int, words: str
) -> None:
    found, answer = server.post(body, kind, query)
    assert found == status
    said = json.loads(answer)
    assert list(said) == ["error"]
    assert words in said["error"]
    assert "Traceback" not in said["error"]


def test_a_body_that_grows_too_large_is_not_read_to_its_end(server: Server) -> None:
    """Its head does not say how large it is."""
    parts = urlsplit(server.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=60) as talk:
        talk.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/dicom\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
        for _ in range(5):
            talk.sendall(chunk)
        assert talk.recv(12) == b"HTTP/1.1 413"


def test_a_path_or_method_that_is_none_gets_a_sentence(server: Server) -> None:
    assert server.get("/nothing")[0] == 404
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    connection.request("PATCH", "/predict")
    assert connection.getresponse().status == 405


def test_health_readiness_version_and_metrics_are_answered(
    server: Server, dicoms: list[bytes]
) -> None:
    server.post(dicoms[0])
    assert json.loads(server.get("/health")[1]) == {"status": "ok"}
    assert json.loads(server.get("/ready")[1]) == {"status": "ready"}
    assert json.loads(server.get("/version")[1])["model"]["name"] == "toy"
    measures = server.get("/metrics")[1].decode()
    assert 'mammoflow_requests_total{path="/predict",status="200"}' in measures
    assert "mammoflow_images_read_total" in measures


def test_damaged_files_of_each_syntax_leave_it_as_it_was(
    server: Server, dicoms: list[bytes]
) -> None:
    before = server.post(dicoms[0])
    for files in seeds().values():
        for file in files:
            for cut in (200, len(file) // 2, len(file) - 3):
                status, _ = server.post(file[:cut] + bytes(5))
                assert status in (200, 422)
    assert server.post(dicoms[0]) == before


def test_a_full_queue_asks_to_come_again(folder: Path, dicoms: list[bytes]) -> None:
    with serving(folder, queue=1) as server:
        parts = urlsplit(server.url)
        with socket.create_connection((str(parts.hostname), parts.port or 0)) as slow:
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/dicom\r\n"
                b"Content-Length: 100\r\n\r\nbegun"
            )
            while server.get("/ready")[0] == 200:
                pass
            connection = http.client.HTTPConnection(parts.netloc)
            headers = {"Content-Type": "application/dicom"}
            connection.request("POST", "/predict", dicoms[0], headers)
            refused = connection.getresponse()
            assert (refused.status, refused.getheader("Retry-After")) == (503, "1")
            assert server.get("/health")[0] == 200
        while server.get("/ready")[0] != 200:  # its client has gone: another request may come
            pass
        assert server.post(dicoms[0])[0] == 200


def test_the_openapi_holds_for_right_and_wrong_requests(server: Server) -> None:
    assert list(ask_by_openapi(server.url, number=1, examples=3)) == []


def test_the_examples_in_the_openapi_fit_the_schema(server: Server) -> None:
    said = json.loads(server.get("/openapi.json")[1])
    answer = said["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    for exam in answer["example"]["exams"]:
        jsonschema.Draft202012Validator(read_schema()).validate(exam)


def test_damaged_mammograms_are_refused_or_read(server: Server) -> None:
    assert send_damaged(server, number=1, examples=40, statuses=Counter()) == []
