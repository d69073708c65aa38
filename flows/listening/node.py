"""How images come in: associations are accepted or rejected, images taken or refused.

An image is acknowledged when it is on the disk, and not before. Statuses are those of PS3.4 B.2.3.
"""

import io
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from flows.listening.journal import Journal
from flows.listening.spool import Spool, SpoolFullError
from flows.processes.words import describe_unusable
from mammo.base.errors import UserError
from mammo.dicom.container import MAX_BYTES
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.values import PARSING, is_uid
from mammo.serving.identity import read_identity

CLASSES = (
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.BreastTomosynthesisImageStorage,
)
"""The classes that are taken. A 2D picture made of a tomosynthesis may have the class of that; a
stack of it is refused when it comes. The model was not made for images for processing: they are
refused, so that no sender believes that somebody looks at them."""

SYNTAXES = (
    uid.JPEG2000Lossless,
    uid.JPEGLSLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.JPEG2000,
    uid.HTJ2K,
    uid.JPEGLSNearLossless,
    uid.JPEGExtended12Bit,
    uid.JPEGBaseline8Bit,
)
"""The syntaxes that our reader decodes. Of several that a sender offers, the first one in this
order is taken: lossless ones first, and of those the ones with the smallest files."""

ASSOCIATIONS = 8
"""Associations at once. Each may hold an image of up to MAX_BYTES in memory."""

PDU = 2**17
"""Bytes of a piece that we ask senders for: with pynetdicom's 16 KiB, large images are slow."""

LONGEST_PDU = 2**20
"""Bytes of a piece at which a connection is closed: pynetdicom itself would read 4 GiB."""

SUCCESS = 0x0000
FAILURE = 0x0110
OUT_OF_RESOURCES = 0xA700
NOT_OF_THE_CLASS = 0xA900
NOT_UNDERSTOOD = 0xC000

# Its warnings may quote what a stranger sent; what matters is in the journal.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
_config.LOG_HANDLER_LEVEL = "none"


@contextmanager
def receive_images(
    host: str, port: int, title: str, callers: Sequence[str], spool: Spool, journal: Journal
) -> Iterator[int]:
    """Take images until the block ends; what is under way then is not acknowledged.

    Args:
        host: to listen at.
        port: 0 for any that is free.
        title: its AE title, by which callers must call it.
        callers: the AE titles that may call; if it is empty, any may.
        spool: where images go.
        journal: gets a line for each image and each refusal.

    Yields:
        The port.

    Raises:
        UserError: the address cannot be used, or an AE title is not valid.
    """
    node = make_entity(title)
    try:
        node.require_calling_aet = list(callers)
    except ValueError as error:
        raise UserError(f"{', '.join(callers)}: not all are AE titles ({error})") from None
    node.require_called_aet = True
    node.maximum_associations = ASSOCIATIONS
    node.maximum_pdu_size = PDU
    node.add_supported_context(Verification)
    for sop_class in CLASSES:
        node.add_supported_context(sop_class, list(SYNTAXES))
    handlers: list[tuple[evt.EventType, Callable[[Event], object]]] = [
        (evt.EVT_C_STORE, lambda event: _store(event, spool, journal)),
        (evt.EVT_CONN_OPEN, _limit_pieces),
        (evt.EVT_DATA_RECV, _limit_image),
        (evt.EVT_REJECTED, lambda event: _record_rejection(event, journal)),
    ]
    try:
        server = node.start_server((host, port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    except (OSError, OverflowError) as error:
        raise UserError(describe_unusable(host, port, error)) from None
    assert server is not None
    try:
        yield int(server.server_address[1])
    finally:
        node.shutdown()


def make_entity(title: str) -> ApplicationEntity:
    """An application entity with a title.

    Raises:
        UserError: it is no AE title.
    """
    try:
        return ApplicationEntity(title)
    except ValueError:
        raise UserError(
            f"{title!r} is no AE title: up to 16 characters of ASCII, no backslash, not only spaces"
        ) from None


def _store(event: Event, spool: Spool, journal: Journal) -> Dataset:
    """The answer to C-STORE."""
    caller = event.assoc.requestor.ae_title
    request = event.request
    assert isinstance(request, C_STORE)
    instance = str(request.AffectedSOPInstanceUID or "")
    image = journal.name_image(instance)
    try:
        study, content = _check(event, request)
        new = spool.take(study, instance, content)
    except _RefusalError as refusal:
        journal.add("refused", image=image, caller=caller, reason=refusal.reason)
        return _make_status(refusal.status, refusal.reason)
    except SpoolFullError:
        reason = "no room is left on the disk"
        journal.add("refused", image=image, caller=caller, reason=reason)
        return _make_status(OUT_OF_RESOURCES, reason)
    except Exception as error:  # noqa: BLE001  (said by its kind alone: it may quote a header)
        reason = f"a fault of this program ({type(error).__name__})"
        journal.add("refused", image=image, caller=caller, reason=reason)
        return _make_status(FAILURE, reason)
    journal.add(
        "received" if new else "received again",
        study=journal.name_study(study),
        image=image,
        bytes=len(content),
        caller=caller,
    )
    return _make_status(SUCCESS)


class _RefusalError(Exception):
    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


def _check(event: Event, request: C_STORE) -> tuple[str, bytes]:
    """The image's study, and the image as a file.

    Raises:
        _RefusalError: nothing could come of it.
    """
    instance = str(request.AffectedSOPInstanceUID or "")
    if not is_uid(instance):
        raise _RefusalError(NOT_OF_THE_CLASS, "its SOPInstanceUID is not valid")
    content = event.encoded_dataset()
    if len(content) > MAX_BYTES:
        raise _RefusalError(NOT_UNDERSTOOD, "it is larger than a mammogram")
    try:
        found = read_identity(content)
    except UnreadableDicom:
        raise _RefusalError(NOT_UNDERSTOOD, "its header is damaged") from None
    if (found.instance, found.sop_class) != (instance, request.AffectedSOPClassUID):
        raise _RefusalError(NOT_OF_THE_CLASS, "its header has another class or SOPInstanceUID")
    for keyword, value in (("StudyInstanceUID", found.study), ("SeriesInstanceUID", found.series)):
        if not is_uid(value):
            raise _RefusalError(NOT_OF_THE_CLASS, f"its header has no usable {keyword}")
    if found.sop_class == uid.BreastTomosynthesisImageStorage and _count_frames(content) != 1:
        raise _RefusalError(NOT_OF_THE_CLASS, "a tomosynthesis, and not a mammogram")
    return str(found.study), content


def _count_frames(content: bytes) -> int:
    try:
        header = pydicom.dcmread(
            io.BytesIO(content),
            stop_before_pixels=True,
            specific_tags=["NumberOfFrames"],
        )
        return int(header.get("NumberOfFrames") or 1)
    except PARSING:
        raise _RefusalError(NOT_UNDERSTOOD, "its header is damaged") from None


def _make_status(status: int, comment: str | None = None) -> Dataset:
    answer = Dataset()
    answer.Status = status
    if comment is not None:
        answer.ErrorComment = comment[:64]
    return answer


def _limit_pieces(event: Event) -> None:
    """Let a connection read no piece that is longer than LONGEST_PDU."""
    connection = event.assoc.dul.socket
    assert connection is not None
    read = connection.recv

    def recv(nr_bytes: int) -> bytearray:
        if nr_bytes > LONGEST_PDU:
            raise OSError("a piece that is too long")
        return read(nr_bytes)

    connection.recv = recv  # type: ignore[method-assign]


def _limit_image(event: Event) -> None:
    """Close a connection on which more than MAX_BYTES come for one image."""
    message = event.assoc.dimse.message
    data = None if message is None else getattr(message, "data_set", None)
    connection = event.assoc.dul.socket
    if data is None or data.tell() <= MAX_BYTES or connection is None or connection.socket is None:
        return
    with suppress(OSError):
        connection.socket.shutdown(socket.SHUT_RDWR)


def _record_rejection(event: Event, journal: Journal) -> None:
    request = event.assoc.requestor.primitive
    assert request is not None
    journal.add("rejected", caller=request.calling_ae_title, called=request.called_ae_title)
