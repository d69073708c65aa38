"""Flow runs that a worker makes for us: they are started, followed, and cancelled with us.

`run_deployment` alone is not enough. A child that fails does not fail its caller, a child that is
cancelled is noticed only when it ends, and a cancelled caller leaves its child running.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling, Crashed

from flows.processes.follow import CommandError
from flows.processes.words import Say

POLL = 2.0  # seconds between two looks at a child
OUTAGE = 600.0  # seconds that Prefect's server may be away
MARGIN = 900.0  # seconds that a child may outlast its limit: it moves files before and after
STOPPING = 60.0  # seconds in which a cancelled child should end

_running: set[UUID] = set()
_cancelled = threading.Event()  # once set, a task that Prefect retries starts no child


def run_child(deployment: str, parameters: dict[str, Any], limit: float, on_line: Say) -> str:
    """Run a deployment, hand each line of its log to `on_line`, and return its final message.

    Args:
        deployment: as Prefect names it, `flow/deployment`.
        parameters: of its flow.
        limit: seconds from its start after which it is stopped, with MARGIN added.
        on_line: called for each line.

    Raises:
        CommandError: if it does not complete, with the last lines of its log.
    """
    if _cancelled.is_set():
        raise CommandError(f"{deployment} was not started: the run is being cancelled")
    run = run_deployment(deployment, parameters=parameters, timeout=0)
    assert isinstance(run, FlowRun)
    child = run.id
    _running.add(child)
    try:
        if _cancelled.is_set():  # meanwhile: `cancel_children` has not seen this child
            cancel_children()
        with get_client(sync_client=True) as client:
            log = _Log(client, child, on_line)
            state = _follow(client, child, limit + MARGIN, log)
            log.read()
    finally:
        _running.discard(child)
    if state.is_completed():
        return state.message or ""
    tail = "\n".join(log.lines[-12:])
    raise CommandError(
        f"{deployment} ended as {state.name}: {state.message}\nThe last lines of its log:\n{tail}"
    )


def cancel_children() -> None:
    """Ask Prefect to cancel every child that any thread follows; none is started afterwards.

    The worker then ends the child's process, which ends its process group.
    """
    _cancelled.set()
    children = list(_running)
    if children:
        with get_client(sync_client=True) as client:
            for child in children:
                client.set_flow_run_state(child, Cancelling())


@dataclass
class _Log:
    """A child's log, as far as it was read."""

    client: SyncPrefectClient
    child: UUID
    on_line: Say
    lines: list[str] = field(default_factory=list)
    _seen: int = 0

    def read(self) -> None:
        """Hand on the lines that have come since the last call."""
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self.child]))
        while new := self.client.read_logs(
            wanted, limit=200, offset=self._seen, sort=LogSort.TIMESTAMP_ASC
        ):
            self._seen += len(new)
            for entry in new:
                for line in entry.message.splitlines():
                    self.lines.append(line)
                    self.on_line(line)


def _follow(client: SyncPrefectClient, child: UUID, limit: float, log: _Log) -> State[Any]:
    """The final state of a child, or its state when we are cancelled."""
    started: float | None = None
    answered = time.monotonic()
    while True:
        try:
            state = client.read_flow_run(child).state
            log.read()
            answered = time.monotonic()
        except (httpx.TransportError, PrefectHTTPStatusError):
            if _cancelled.is_set() or time.monotonic() - answered > OUTAGE:
                raise
            state = None
        if state is not None and state.is_final():
            return state
        if state is not None and state.is_running() and started is None:
            started = time.monotonic()
        if state is not None and _cancelled.is_set():
            return state  # Cancelling: its worker ends it, and we may have only seconds left
        if started is not None and time.monotonic() - started > limit:
            return _stop(client, child, limit)
        _cancelled.wait(POLL)


def _stop(client: SyncPrefectClient, child: UUID, limit: float) -> State[Any]:
    """Cancel a child; if its worker does not answer, record it as crashed."""
    message = f"it was stopped after {limit:g} s"
    client.set_flow_run_state(child, Cancelling(message=message))
    deadline = time.monotonic() + STOPPING
    while time.monotonic() < deadline:
        state = client.read_flow_run(child).state
        if state is not None and state.is_final():
            return state
        time.sleep(POLL)
    crashed: State[Any] = Crashed(message=f"{message}, and its worker does not answer")
    client.set_flow_run_state(child, crashed, force=True)
    return crashed
