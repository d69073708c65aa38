"""The model version that a user names by number or alias."""

import re

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from flows.processes.words import hide_password
from flows.tracking.names import MODEL
from flows.tracking.registry import get_version, is_absent
from mammo.base.errors import UserError


def find_version(reference: str) -> ModelVersion:
    """The model version that `3`, `champion` or `mammogram-classifier@champion` means.

    Raises:
        UserError: if there is none.
    """
    match = re.fullmatch(rf"(?:{re.escape(MODEL)}[@/])?@?(\w[\w-]*)", reference)
    if match is None:
        raise UserError(f"{reference!r} is no version: write a number or {MODEL}@champion")
    name = match[1]
    try:
        if name.isdecimal():
            return get_version(int(name))
        return MlflowClient().get_model_version_by_alias(MODEL, name)
    except MlflowException as error:
        if not is_absent(error) and error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        where = hide_password(mlflow.get_tracking_uri())
        raise UserError(
            f"the registry {where} has no {MODEL} {reference}: {error.message}"
        ) from None
