"""MLflow's server as `mammoflow up` starts it, for the registry of a clone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.servers import supervised, up, wanted
from tests.support.toys import environment, find_free_port


@contextmanager
def serve_registry(root: Path, code: Path) -> Iterator[str]:
    """Serve the registry of a clone by the code in a folder; its address."""
    address = wanted.Address("127.0.0.1", find_free_port())
    running = supervised.start(
        up._describe_mlflow_server(root, address, environment({"PYTHONPATH": str(code)})),
        root,
        root / ".prefect" / "up",
    )
    try:
        supervised.wait_until_ready(running)
        yield address.url
    finally:
        supervised.stop([running])
