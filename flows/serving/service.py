"""The model's answers over HTTP: an app for uvicorn. Research use only. Not a medical device."""

import base64
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from flows.serving.desk import Answer, Desk
from flows.serving.entrance import Entrance
from flows.serving.measures import Measures
from flows.serving.openapi import PREDICT, describe_service
from flows.serving.uploads import Limits, discard_refused, receive_files
from mammo.serving.finding import NOTICE, ExamFinding, describe_model, to_document

QUEUE = 32
"""Requests at most that are being answered, or wait; a further one is refused with 503."""

PNG = "image/png"

log = logging.getLogger(__name__)


def make_app(desk: Desk, limits: Limits | None = None, queue: int = QUEUE) -> FastAPI:
    """The service of a desk.

    Args:
        desk: with a model; the app opens and closes it.
        limits: of a request.
        queue: requests at most at once.
    """
    measures = Measures()
    entrance = Entrance(queue, measures.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with entrance.open():
            async with desk:
                yield

    app = FastAPI(
        title="Mammoflow",
        description=NOTICE,
        version="1",
        lifespan=lifespan,
        docs_url=None,  # they would fetch scripts from elsewhere
        redoc_url=None,
    )
    app.openapi = lambda: describe_service(app)  # type: ignore[method-assign]
    _measure_requests(app, measures)
    _add_predict(app, desk, entrance, measures, limits or Limits())
    _add_readiness(app, entrance)
    _add_model(app, desk, measures)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(Exception, _refuse_for_fault)
    return app


def _measure_requests(app: FastAPI, measures: Measures) -> None:
    """Count each request of an app, and how long its answer took."""

    @app.middleware("http")
    async def measure(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        begin = time.monotonic()
        response = await proceed(request)
        path = getattr(request.scope.get("route"), "path", "other")
        measures.count(path, response.status_code, time.monotonic() - begin)
        return response


def _add_predict(
    app: FastAPI, desk: Desk, entrance: Entrance, measures: Measures, limits: Limits
) -> None:
    """Let an app answer what the model finds in files."""

    @app.post("/predict", **PREDICT)
    async def predict(
        request: Request,
        heatmap: Annotated[bool, Query(description="With heatmaps, as PNG in base64.")] = False,
        identified: Annotated[
            bool, Query(description="With the ids of the headers, not hashes of them.")
        ] = False,
    ) -> Response:
        async with discard_refused(request, limits):
            entrance.require_room()
        with entrance.admit() as folder:
            async with discard_refused(request, limits):
                files = await receive_files(request, folder, limits)
                picture = _wants_picture(request)
                if picture and len(files) > 1:
                    raise HTTPException(
                        400, f"{PNG} is the heatmap of one file: ask for JSON with ?heatmap=1"
                    )
                found = await desk.answer(files, "picture" if heatmap or picture else "facts")
        measures.read.inc(sum(len(exam.images) for exam in found.exams))
        measures.unread.inc(len(found.unread))
        return _make_response(found, heatmap, picture, identified)


def _add_readiness(app: FastAPI, entrance: Entrance) -> None:
    """Let an app tell whether it lives, and whether it takes requests."""

    @app.get("/health", summary="Whether the process lives.")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether a request would be taken.", responses=_BUSY)
    async def ready() -> dict[str, str]:
        entrance.require_room()
        return {"status": "ready"}


def _add_model(app: FastAPI, desk: Desk, measures: Measures) -> None:
    """Let an app tell which model answers, and what was counted."""
    measures.serve(desk.loaded.model)

    @app.get("/version", summary="Which model answers.")
    async def version() -> dict[str, Any]:
        loaded = desk.loaded
        return {
            "notice": NOTICE,
            **describe_model(loaded.model, loaded.predictor.operating_point),
        }

    @app.get("/metrics", summary="Counters for Prometheus.", response_class=Response)
    async def metrics() -> Response:
        measures.serve(desk.loaded.model)
        return Response(measures.write(), media_type=measures.media_type)


_BUSY: dict[int | str, dict[str, Any]] = {503: {"description": "Too many requests wait already."}}


def _wants_picture(request: Request) -> bool:
    """Whether a PNG is asked for by name."""
    asked = request.headers.get("accept", "").split(",")
    return any(kind.partition(";")[0].strip().lower() == PNG for kind in asked)


def _make_response(found: Answer, heatmap: bool, picture: bool, identified: bool) -> Response:
    unread = [{"number": file.number, "reason": file.reason} for file in found.unread]
    if not found.exams:
        status = 500 if found.ours else 422
        sentence = "; ".join(f"file {file.number}: {file.reason}" for file in found.unread)
        return _make_refusal(status, sentence)
    if picture:
        (image,) = found.exams[0].images
        return Response(image.heatmap, media_type=PNG, headers={"Notice": NOTICE})
    exams = [_describe_exam(exam, heatmap, identified) for exam in found.exams]
    return JSONResponse({"notice": NOTICE, "exams": exams, "unread": unread})


def _describe_exam(exam: ExamFinding, heatmap: bool, identified: bool) -> dict[str, Any]:
    drawn = {
        image.number: base64.b64encode(image.heatmap).decode()
        for image in exam.images
        if heatmap and image.heatmap is not None
    }
    return to_document(exam, identified, drawn)


def _make_refusal(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _make_refusal(error.status_code, str(error.detail), error.headers)


async def _refuse_parameters(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    return _make_refusal(422, "; ".join(faults))


async def _refuse_for_fault(_: Request, error: Exception) -> Response:
    log.error("a fault of the service: %s", type(error).__name__)
    return _make_refusal(500, f"a fault of the service ({type(error).__name__}); its log says more")
