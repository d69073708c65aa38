"""The way through a PACS: the source images and the results meet in one study, and refer to it."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom.ae import ApplicationEntity

from mammo.dicom_results.write import Kind, write_results
from tests.support.findings import make_finding, sources_of

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
pytestmark = pytest.mark.skipif(ORTHANC is None, reason="no Orthanc: apt-get install orthanc")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pacs:
    """An Orthanc of our own, on ports of its own."""

    def __init__(self, http: int, dicom: int) -> None:
        self.http, self.dicom = http, dicom

    def get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=20) as answer:
            return json.load(answer)

    def store(self, files: list[Path]) -> None:
        """C-STORE, in the transfer syntax that each file has."""
        datasets = [pydicom.dcmread(file) for file in files]
        node = ApplicationEntity("MAMMOFLOW")
        for sop_class, syntax in sorted(
            {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in datasets}
        ):
            node.add_requested_context(sop_class, syntax)
        association = node.associate("127.0.0.1", self.dicom, ae_title="ORTHANC")
        assert association.is_established
        try:
            for dataset in datasets:
                assert association.send_c_store(dataset).Status == 0x0000
        finally:
            association.release()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    folder = tmp_path_factory.mktemp("orthanc")
    found = Pacs(free_port(), free_port())
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [],
        "HttpPort": found.http,
        "DicomPort": found.dicom,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                found.get("/system")
                break
            except URLError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        process.wait(60)


def references_in(dataset: Dataset) -> set[str]:
    return {
        str(element.value)
        for element in dataset.iterall()
        if element.keyword == "ReferencedSOPInstanceUID"
    }


@pytest.mark.parametrize(("kind", "woman"), [("cad", 0), ("1500", 1)])
def test_the_study_has_the_results_as_new_series_and_their_references_resolve(
    pacs: Pacs, phantoms: list[list[Path]], tmp_path: Path, kind: Kind, woman: int
) -> None:
    views = phantoms[woman]
    exam = make_finding(views, [0.9, 0.8, 0.7, 0.6])
    results = sorted(write_results(exam, sources_of(exam), tmp_path, kind).iterdir())
    pacs.store(views)
    pacs.store(results)
    study_uid = pydicom.dcmread(views[0], stop_before_pixels=True).StudyInstanceUID
    studies = [pacs.get(f"/studies/{name}") for name in pacs.get("/studies")]
    (study,) = [s for s in studies if s["MainDicomTags"]["StudyInstanceUID"] == study_uid]
    series = [pacs.get(f"/series/{name}") for name in study["Series"]]
    modalities = sorted(one["MainDicomTags"]["Modality"] for one in series)
    assert modalities == ["MG"] * 4 + ["OT"] * 2 + ["SR"]  # a series for each breast's pictures
    stored: dict[str, Dataset] = {}
    for one in series:
        for name in one["Instances"]:
            with urlopen(f"http://127.0.0.1:{pacs.http}/instances/{name}/file") as answer:
                (tmp_path / "back.dcm").write_bytes(answer.read())
            dataset = pydicom.dcmread(tmp_path / "back.dcm")
            stored[dataset.SOPInstanceUID] = dataset
    assert len(stored) == len(views) + len(results)
    for sent in results:
        dataset = pydicom.dcmread(sent)
        assert stored[dataset.SOPInstanceUID] == dataset  # nothing was changed on the way
        assert references_in(dataset) <= set(stored)
    (report,) = [dataset for dataset in stored.values() if dataset.Modality == "SR"]
    assert references_in(report) == {
        uid for uid, dataset in stored.items() if dataset.Modality == "MG"
    }
