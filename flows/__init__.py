"""What happens around the pipeline: Prefect flows, MLflow, git snapshots, the command line.

Importing this package sets what its libraries read from the environment while they are being
imported, so it comes before them. Whatever the user has set stays as it is, unless it is empty; but
no proxy stands between us and this machine's own servers.
"""

import os

import mammo  # noqa: F401  (pins what numerical libraries read, which MLflow brings along)
from flows.processes import prefect_home, proxies

_DEFAULTS = {
    # Nothing phones home.
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Prefect's state belongs to the project's folder, not to the home folder.
    "PREFECT_HOME": str(prefect_home.HOME.absolute()),
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_TRACKING_URI": "sqlite:///mlruns/mlflow.db",
    "GIT_PYTHON_REFRESH": "quiet",
    # Seconds. Without it a database that takes connections and says nothing is waited for for ever.
    "PGCONNECT_TIMEOUT": "5",
}

# An empty value says as little as none: what starts us may set every variable that it knows. MLflow
# would take one for a store of its own, in this folder.
for _name, _value in list(os.environ.items()):
    if not _value and _name.startswith(("MAMMOFLOW_", "MLFLOW_", "PREFECT_")):
        del os.environ[_name]
for _name, _value in _DEFAULTS.items():
    os.environ[_name] = os.environ.get(_name) or _value

proxies.exempt(proxies.LOOPBACK)
proxies.leave_out_socks()
