"""The files of a request: counted while they come, and written to disk before they are read.

A body that is too large, too slow or holds no files is refused with a status and a sentence.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import Message as Event

RAW = ("application/dicom", "application/octet-stream")
FORM = "multipart/form-data"


@dataclass(frozen=True)
class Limits:
    """The limits of one request."""

    bytes: int = 2**29  # of a body: an exam of four uncompressed views of the largest machines
    files: int = 64
    seconds: float = 60.0  # until the whole body has come


async def receive_files(request: Request, folder: Path, limits: Limits) -> list[Path]:
    """Write the files of a request's body into a folder, under names of ours, in order.

    Raises:
        HTTPException: 400 if there is none, or the form is broken; 408, 413 or 415 if the body is
            too slow, too large or of another kind.
    """
    kind = _read_media_type(request)
    if kind not in (*RAW, FORM):
        raise HTTPException(
            415,
            f"the body must be a DICOM file, sent as {RAW[0]} or {RAW[1]}, or several as {FORM}",
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.bytes:
        raise _refuse_size(limits)
    try:
        async with asyncio.timeout(limits.seconds):
            if kind == FORM:
                return await _receive_form(_limit(request, limits), folder, limits)
            return await _receive_raw(_limit(request, limits).stream(), folder)
    except TimeoutError:
        raise HTTPException(
            408, f"the body was not there within {limits.seconds:.0f} seconds"
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended too soon") from None


@asynccontextmanager
async def discard_refused(request: Request, limits: Limits) -> AsyncIterator[None]:
    """If the block refuses a request, read the rest of its body, and keep nothing of it.

    Otherwise the connection would be reset while the client still sends, and the client would never
    see why. As much is read as a good body may have. A client that waits to be asked for its body
    is not asked.
    """
    try:
        yield
    except HTTPException:
        await _discard_rest(request, limits)
        raise


async def _discard_rest(request: Request, limits: Limits) -> None:
    if request.headers.get("expect") or getattr(request.state, "has_ended", False):
        return
    left = limits.bytes
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(limits.seconds):
            while left > 0:
                event = await request.receive()
                left -= len(event.get("body", b""))
                if not event.get("more_body", False):
                    return


def _read_media_type(request: Request) -> str:
    message = Message()
    message["Content-Type"] = request.headers.get("content-type", "")
    return message.get_content_type() if request.headers.get("content-type") else ""


def _limit(request: Request, limits: Limits) -> Request:
    """The request; its body ends in an error once it is too large, whatever the header says."""
    received = 0

    async def receive() -> Event:
        nonlocal received
        event = await request.receive()
        # After the last part, the next event comes when the client goes away.
        request.state.has_ended = not event.get("more_body", False)
        received += len(event.get("body", b""))
        if received > limits.bytes:
            raise _refuse_size(limits)
        return event

    return Request(request.scope, receive)


def _refuse_size(limits: Limits) -> HTTPException:
    return HTTPException(413, f"the body is larger than {limits.bytes} bytes")


async def _receive_raw(stream: AsyncIterator[bytes], folder: Path) -> list[Path]:
    file = folder / "1"
    size = 0
    with file.open("wb") as written:
        async for part in stream:
            size += len(part)
            await asyncio.to_thread(written.write, part)
    if not size:
        raise HTTPException(400, "the body is empty: send a DICOM file")
    return [file]


async def _receive_form(request: Request, folder: Path, limits: Limits) -> list[Path]:
    try:
        form = await request.form(max_files=limits.files, max_fields=0)
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    except HTTPException as error:
        if error.status_code == 413:
            raise
        raise HTTPException(400, f"the form cannot be read: {error.detail}") from None
    try:
        files = []
        for number, (_, part) in enumerate(form.multi_items(), start=1):
            if not isinstance(part, UploadFile):
                raise HTTPException(400, "a part of the form is no file: give it a file name")
            file = folder / f"{number}"
            await asyncio.to_thread(_copy, part, file)
            files.append(file)
    finally:
        await form.close()
    if not files:
        raise HTTPException(400, "the form has no files: send each DICOM file as a part of it")
    return files


def _copy(part: UploadFile, file: Path) -> None:
    with file.open("wb") as written:
        shutil.copyfileobj(part.file, written)
