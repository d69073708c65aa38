"""The model version that a user names by number or alias."""

import re

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from flows.processes.words import hide_password
from flows.tracking.names import MODEL, parse_reference
from flows.tracking.registry import get_version, is_absent
from mammo.base.errors import UserError


def find_version(reference: str) -> ModelVersion:
    """The model version that `3`, `champion` or `mammogram-classifier@champion` means.

    Raises:
        UserError: if there is none.
    """
    name = parse_reference(reference)
    try:
        if name.isdecimal():
            return get_version(int(name))
        return MlflowClient().get_model_version_by_alias(MODEL, name)
    except MlflowException as error:
        if not is_absent(error) and not _is_unset_alias(error, name):
            raise
        where = hide_password(mlflow.get_tracking_uri())
        raise UserError(
            f"the registry {where} has no {MODEL} {reference}: {error.message}"
        ) from None


def _is_unset_alias(error: MlflowException, name: str) -> bool:
    """Whether MLflow said that no version has an alias, which it calls a wrong parameter.

    It says the same of an address that it cannot read, and that is no absent version.
    """
    said = rf"\b{re.escape(name)}\b"
    return error.error_code == "INVALID_PARAMETER_VALUE" and bool(re.search(said, error.message))
