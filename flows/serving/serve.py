"""The service as a process: its address, its end, and a new champion that it changes to."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from flows.processes.words import Say, describe_unusable, write_host
from flows.serving.desk import Desk
from flows.serving.load import LoadedModel, load_found, load_version
from flows.serving.service import make_app
from flows.tracking.find_version import find_version
from flows.tracking.registry import EXPECTED, describe_error
from mammo.base.errors import UserError
from mammo.base.processor import count_cores

INTERVAL = 10.0
"""Seconds after which the registry is asked again for the version of an alias."""

PATIENCE = 30
"""Seconds in which requests have to end, once the service is told to end."""

log = logging.getLogger(__name__)


def serve(reference: str, follow: bool, host: str, port: int, say: Say) -> None:
    """Answer requests until SIGINT or SIGTERM; those that have begun are still answered.

    Args:
        reference: the version.
        follow: change to the version that the alias `reference` means later on.
        host: to listen at.
        port: 0 for any that is free.
        say: gets a line with the address, once connections are accepted.

    Raises:
        UserError: if the version cannot be loaded, or the address is not free.
    """
    if follow and reference.lstrip("@").isdecimal():
        raise UserError(f"--follow needs an alias such as @champion: {reference} is always itself")
    listener = _listen(host, port)
    with listener:
        desk = Desk(load_version(reference), count_cores())
        app = make_app(desk)
        if follow:
            _add_following(app, desk, reference, INTERVAL)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=PATIENCE,
        )
        address = f"http://{write_host(host)}:{listener.getsockname()[1]}"
        model = desk.loaded.model
        say(f"{model.name} version {model.version} answers at {address}/predict, until Ctrl-C")
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise UserError(describe_unusable(host, port, error)) from None


def _add_following(app: FastAPI, desk: Desk, reference: str, seconds: float) -> None:
    """Let an app change to the version that an alias means, while it is at work."""
    inner: Callable[[FastAPI], object] = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner(app):  # type: ignore[attr-defined]
            task = asyncio.create_task(_follow(desk, reference, seconds))
            yield
            task.cancel()

    app.router.lifespan_context = lifespan


async def _follow(desk: Desk, reference: str, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        found = await asyncio.to_thread(_find_other, reference, desk.loaded.model.version)
        if found is not None:
            desk.replace(found)
            log.warning("version %s answers from now on", found.model.version)


def _find_other(reference: str, version: int | None) -> LoadedModel | None:
    """The version that an alias means now, if it is another one and can be loaded."""
    try:
        found = find_version(reference)
        return None if int(found.version) == version else load_found(found)
    except EXPECTED as error:
        log.warning("the registry named no version that can be loaded: %s", describe_error(error))
        return None
