"""The audit as a deployment, which can be started from Prefect's pages.

It is the deployment `audit` of prefect.yaml; at a console `mammoflow audit` does the same.
"""

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed

from flows.audit.audit import audit as audit_version
from flows.audit.history import keep
from flows.audit.record import EXIT_STATUS
from flows.tracking import registry
from mammo.base.errors import UserError
from mammo.base.settings import load_params


@flow(name="audit", flow_run_name="audit {version}")
def audit(version: str, quick: bool = False) -> State[Any]:
    """Reproduce a registered model version and prove it, or say what is wrong with it.

    Args:
        version: its number, such as 3, or an alias, such as mammogram-classifier@champion.
        quick: check the records only; nothing is run again.

    Returns:
        A completed state if the version was reproduced, else a failed one; its message is the
        audit's sentence.
    """
    root = Path.cwd()
    try:
        found = audit_version(root, version, load_params(), quick, get_run_logger().info)
    except registry.EXPECTED as error:
        return Failed(message=registry.describe_error(error))
    try:
        kept = f"report: `{keep(root, found)}/index.html` of the MLflow run `{found.run}`"
    except UserError as error:
        kept = str(error)
        get_run_logger().error(kept)
    create_markdown_artifact(
        f"## {found.verdict}\n\n{found.sentence}\n\n{kept}\n",
        key="audit",
        description=f"audit of version {version}",
    )
    outcome = Failed if EXIT_STATUS[found.verdict] else Completed
    return outcome(message=f"{found.verdict}: {found.sentence}")
