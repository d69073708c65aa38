"""The OpenAPI description of the service: its one request, its answers, and an example."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from flows.serving.uploads import FORM, RAW
from mammo.serving.finding import NOTICE, read_schema

_FILE = {"type": "string", "format": "binary", "description": "A DICOM file."}
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "minItems": 1, "maxItems": 64, "items": _FILE}},
}
_ERROR_REF = {"$ref": "#/components/schemas/Error"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {"error": {"type": "string", "description": "A sentence."}},
}
_ANSWER = {
    "type": "object",
    "required": ["notice", "exams", "unread"],
    "additionalProperties": False,
    "properties": {
        "notice": {"const": NOTICE},
        "exams": {"type": "array", "items": {"$ref": "#/components/schemas/exam"}},
        "unread": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["number", "reason"],
                "additionalProperties": False,
                "properties": {
                    "number": {"type": "integer", "minimum": 1},
                    "reason": {"type": "string"},
                },
            },
        },
    },
}
_EXAMPLE = {
    "notice": NOTICE,
    "exams": [
        {
            "notice": NOTICE,
            "exam": "4516572e4a0db6ad",
            "model": {
                "name": "mammogram-classifier",
                "version": 3,
                "snapshot": "5b1c3f0e9a7d42d1",
                "commit": "e797359",
                "code": "0d3c9a5be1f04c77",
            },
            "operating_point": {"threshold": 0.216, "beta": 2.0, "chosen_on": "validation"},
            "aggregate": "max",
            "probability": 0.25,
            "decision": "positive",
            "breasts": [
                {
                    "laterality": "L",
                    "probability": 0.25,
                    "decision": "positive",
                    "images": [
                        {
                            "number": 1,
                            "image": "ab2805ea04267dc9",
                            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.2",
                            "view": "CC",
                            "rows": 4096,
                            "columns": 3328,
                            "probability": 0.25,
                            "box": {"x1": 0.0, "y1": 512.0, "x2": 1800.0, "y2": 3500.0},
                            "found_by": "detector",
                            "peak": {"x": 640.5, "y": 1702.25, "heat": 1.0},
                            "region": {
                                "share": 0.5,
                                "points": [[600.0, 1650.0], [700.0, 1650.0], [650.0, 1750.0]],
                            },
                        }
                    ],
                }
            ],
        }
    ],
    "unread": [],
}

_REFUSALS = {
    400: "The body holds no file, or is broken.",
    408: "The body was too slow.",
    413: "The body is too large.",
    415: "The body is of another kind.",
    422: "No file is a mammogram that can be read, or a parameter is wrong.",
    500: "A fault of the service.",
    503: "Too many requests wait already: come again after Retry-After seconds.",
}

PREDICT: dict[str, Any] = {
    "summary": "What the model finds in DICOM files.",
    "description": "One file as the body, or several as a form; files of one study are an exam.",
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                **{kind: {"schema": _FILE} for kind in RAW},
                FORM: {"schema": _FORM},
            },
        }
    },
    "responses": {
        200: {
            "description": "The findings, or the heatmap of one file.",
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Answer"},
                    "example": _EXAMPLE,
                },
                "image/png": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **{
            status: {
                "description": sentence,
                "content": {"application/json": {"schema": _ERROR_REF}},
            }
            for status, sentence in _REFUSALS.items()
        },
    },
}
"""The arguments with which FastAPI gets `POST /predict`."""


def describe_service(app: FastAPI) -> dict[str, Any]:
    """The service's OpenAPI, with the schema of an exam among its components."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        text = json.dumps(read_schema()).replace("#/$defs/", "#/components/schemas/")
        exam = {key: value for key, value in json.loads(text).items() if key[0] != "$"}
        parts = json.loads(text)["$defs"]
        components = found.setdefault("components", {}).setdefault("schemas", {})
        components.update(parts | {"exam": exam, "Answer": _ANSWER, "Error": _ERROR})
        app.openapi_schema = found
    return app.openapi_schema
