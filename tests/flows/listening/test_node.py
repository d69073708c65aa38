"""Who may send what: associations, UIDs, classes, sizes, and what is taken twice."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom.ae import ApplicationEntity
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from flows.listening.journal import JOURNAL, Journal
from flows.listening.node import CLASSES, SYNTAXES, receive_images
from flows.listening.spool import Spool, list_images, open_spool
from mammo.base.errors import UserError
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.reader import read_mammogram
from mammo.dicom.values import is_uid
from tests.support.dicoms import dataset as make_dataset
from tests.support.dicoms import encapsulated, half_breast, saved
from tests.support.listening import is_answering, read_journal, store, wait_until

MG = uid.DigitalMammographyXRayImageStorageForPresentation


@contextmanager
def node(
    folder: Path, limit: int = 2**30, callers: tuple[str, ...] = ()
) -> Iterator[tuple[Spool, int]]:
    with open_spool(folder, limit) as spool:
        journal = Journal(folder / JOURNAL)
        with receive_images("127.0.0.1", 0, "MAMMOFLOW", callers, spool, journal) as port:
            yield spool, port


@pytest.fixture(scope="module")
def open_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Spool, int]]:
    with node(tmp_path_factory.mktemp("node") / "spool") as found:
        yield found


def image(number: int = 1, **tags: Any) -> Dataset:
    ids: dict[str, Any] = {
        "SOPClassUID": MG,
        "SOPInstanceUID": f"2.25.{number}",
        "StudyInstanceUID": "2.25.77",
        "SeriesInstanceUID": "2.25.78",
    }
    made = make_dataset(half_breast(60, 48), **(ids | tags))
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def status_of(port: int, sent: Dataset) -> tuple[int, str]:
    (answer,) = store(port, [sent])
    assert answer is not None
    return answer.Status, answer.get("ErrorComment", "")


def associate(port: int, caller: str, called: str) -> tuple[bool, str]:
    """Whether the association was rejected, and why."""
    entity = ApplicationEntity(caller)
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if association.is_established:
        association.release()
        return False, ""
    primitive = association.acceptor.primitive
    assert primitive is not None
    return association.is_rejected, str(primitive.reason_str)


def test_a_node_answers_to_echo(open_node: tuple[Spool, int]) -> None:
    assert is_answering(open_node[1])


def test_an_image_is_on_the_disk_as_it_was_sent_when_it_is_acknowledged(
    open_node: tuple[Spool, int],
) -> None:
    spool, port = open_node
    sent = image(5)
    assert status_of(port, sent) == (0x0000, "")
    (file,) = list_images(spool.folder_of("collecting", "2.25.77"))
    assert pydicom.dcmread(file) == sent
    assert read_mammogram(file, 64).pixels.any()
    assert (file.stat().st_mode & 0o077, spool.folder.stat().st_mode & 0o077) == (0, 0)


def test_an_image_that_comes_again_is_acknowledged_and_taken_once(tmp_path: Path) -> None:
    with node(tmp_path / "spool") as (spool, port):
        for _ in range(2):
            assert status_of(port, image()) == (0x0000, "")
        assert len(list_images(spool.folder_of("collecting", "2.25.77"))) == 1
    steps = [line["step"] for line in read_journal(tmp_path / "spool")]
    assert steps == ["received", "received again"]


@pytest.mark.parametrize(
    ("tags", "status", "words"),
    [
        ({"StudyInstanceUID": "../../etc"}, 0xA900, "StudyInstanceUID"),
        ({"StudyInstanceUID": ""}, 0xA900, "StudyInstanceUID"),
        ({"StudyInstanceUID": "1." + "2" * 63}, 0xA900, "StudyInstanceUID"),
        ({"SeriesInstanceUID": ".."}, 0xA900, "SeriesInstanceUID"),
        ({"SOPInstanceUID": "1/2"}, 0xA900, "SOPInstanceUID"),
        (
            {"SOPClassUID": uid.BreastTomosynthesisImageStorage, "NumberOfFrames": 40},
            0xA900,
            "tomosynthesis",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_cannot_be_answered_is_refused_with_a_status_and_a_sentence(
    open_node: tuple[Spool, int], tags: dict[str, object], status: int, words: str
) -> None:
    spool, port = open_node
    before = sorted(spool.folder.rglob("*.dcm"))
    found, comment = status_of(port, image(9, **tags))
    assert (found, words in comment) == (status, True)
    assert sorted(spool.folder.rglob("*.dcm")) == before
    assert read_journal(spool.folder)[-1]["step"] == "refused"


def test_an_object_that_calls_itself_another_one_is_refused(open_node: tuple[Spool, int]) -> None:
    """Or one image could take another one's name."""
    _, port = open_node
    entity = ApplicationEntity("MODALITY")
    entity.add_requested_context(MG, uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="MAMMOFLOW")
    sent = image(30)
    send = association.dimse.send_msg

    def send_misnamed(message: object, context: int) -> None:
        message.AffectedSOPInstanceUID = "2.25.31"  # type: ignore[attr-defined]
        send(message, context)  # type: ignore[arg-type]

    association.dimse.send_msg = send_misnamed  # type: ignore[assignment,method-assign]
    assert association.send_c_store(sent).Status == 0xA900
    association.release()


def test_a_picture_made_of_a_tomosynthesis_is_taken(open_node: tuple[Spool, int]) -> None:
    made = image(12, SOPClassUID=uid.BreastTomosynthesisImageStorage, NumberOfFrames=1)
    assert status_of(open_node[1], made) == (0x0000, "")


def test_classes_that_the_model_does_not_look_at_are_not_negotiated(
    open_node: tuple[Spool, int],
) -> None:
    entity = ApplicationEntity("MODALITY")
    entity.add_requested_context(uid.DigitalMammographyXRayImageStorageForProcessing)
    entity.add_requested_context(MG)
    association = entity.associate("127.0.0.1", open_node[1], ae_title="MAMMOFLOW")
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    association.release()
    assert accepted == {MG}
    assert uid.DigitalMammographyXRayImageStorageForProcessing not in CLASSES


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_every_syntax_that_is_offered_is_one_that_our_reader_knows(syntax: uid.UID) -> None:
    """Of a frame that is none it says that it is damaged, not that it is of an unknown kind."""
    pixels = half_breast(60, 48)
    if not syntax.is_encapsulated:
        little = syntax.is_little_endian
        made = make_dataset(pixels, syntax)
        made.PixelData = (pixels if little else pixels.byteswap()).tobytes()
        assert read_mammogram(saved(made), 64).pixels.any()
        return
    with pytest.raises(UnreadableDicom) as refusal:
        read_mammogram(encapsulated(pixels, syntax, b"no frame"), 64)
    assert "not supported" not in refusal.value.reason


def test_strangers_are_rejected_with_the_reason_of_the_standard(tmp_path: Path) -> None:
    with node(tmp_path / "spool", callers=("MODALITY", "PACS")) as (_, port):
        assert associate(port, "PACS", "MAMMOFLOW") == (False, "")
        assert associate(port, "STRANGER", "MAMMOFLOW") == (
            True,
            "Calling AE title not recognised",
        )
        assert associate(port, "PACS", "OTHER") == (True, "Called AE title not recognised")
    told = [line for line in read_journal(tmp_path / "spool") if line["step"] == "rejected"]
    assert [line["caller"] for line in told] == ["STRANGER", "PACS"]


def test_a_full_disk_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    with node(tmp_path / "spool", limit=20_000) as (spool, port):
        found = [status_of(port, image(n)) for n in (1, 2, 3, 4)]
        assert found[0] == (0x0000, "")
        assert found[-1] == (0xA700, "no room is left on the disk")
        assert spool.measure() <= 20_000
        spool.complete("2.25.77")
        spool.drop("2.25.77")
        assert status_of(port, image(4)) == (0x0000, "")


def test_a_piece_that_says_that_it_is_huge_ends_its_connection(
    open_node: tuple[Spool, int],
) -> None:
    with socket.create_connection(("127.0.0.1", open_node[1]), timeout=20) as talk:
        talk.sendall(struct.pack(">BBL", 1, 0, 2**31) + bytes(1000))
        talk.settimeout(20)
        with suppress(ConnectionResetError):
            assert talk.recv(1) == b""
    wait_until(lambda: is_answering(open_node[1]))


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("1.2.840.10008.1", True),
        ("2.25.0", True),
        ("1.2." + "3" * 60, True),
        ("1.2." + "3" * 61, False),
        ("1.02", False),
        ("1", False),
        ("1.2.", False),
        ("..", False),
        ("1.2\n", False),
        ("1.2/3", False),
        ("", False),
        (None, False),
        ("\u0661.\u0662", False),
    ],
)
def test_a_uid_is_a_name_that_leads_nowhere(text: str | None, valid: bool) -> None:
    assert is_uid(text) is valid


def test_a_spool_has_one_node_and_holds_nothing_else(tmp_path: Path) -> None:
    with (
        open_spool(tmp_path / "spool", 1),
        pytest.raises(UserError, match="another mammoflow listen uses it"),
        open_spool(tmp_path / "spool", 1),
    ):
        pass
    with open_spool(tmp_path / "spool", 1):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.doc").touch()
    with pytest.raises(UserError, match="holds other things"), open_spool(tmp_path / "other", 1):
        pass


def test_an_address_that_is_taken_and_a_title_that_is_none_are_one_sentence(
    tmp_path: Path,
) -> None:
    with open_spool(tmp_path / "spool", 1) as spool:
        journal = Journal(tmp_path / "spool" / JOURNAL)
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            pytest.raises(UserError, match="cannot be used"),
            receive_images("127.0.0.1", taken.getsockname()[1], "MAMMOFLOW", (), spool, journal),
        ):
            pass
        for title in ("", "   ", "A" * 17, "BACK\\SLASH"):
            with (
                pytest.raises(UserError, match="AE title"),
                receive_images("127.0.0.1", 0, title, (), spool, journal),
            ):
                pass
