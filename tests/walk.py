"""The story that docs/team.md tells of several machines, walked from its beginning to its end.

    make walk

Four machines, as far as one can have them on one: a builder, a server, a GPU worker and an auditor,
each in a mount namespace of its own, where it has its home, its clone and its caches, and sees
nothing of the others'. What they share is what is pushed and served: a bare repository of git, a
folder that is DVC's remote, ports of loopback, and a mirror of packages. The data set is small.

What is typed, what it says and how long it took is printed as it goes; docs/team.md has such a
transcript. Exits with 1 at the first thing that is not as it should be.
"""

import contextlib
import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.toys import find_free_port

ROOT = Path(__file__).parents[1]
MODEL = "mammogram-classifier"
SHOWN = 12  # lines of what a command says
PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
LIMIT = 1200  # seconds for a command

ENTER = """
set -e
mount -t tmpfs walk /mnt
mkdir /mnt/{name} /mnt/shared /mnt/packages
mount --bind {walk}/{name} /mnt/{name}
mount --bind {walk}/shared /mnt/shared
mount --bind {packages} /mnt/packages
mount -t tmpfs hidden {walk}
mount -t tmpfs hidden {root}
cd {folder}
exec bash -c {command}
"""

# Small enough for minutes; the floors of the gate let pass what so small a set can show.
SMALL_SET = """
import yaml
from pathlib import Path
from benchmarks.overhead import SMALL
from mammo.datasets.phantom.draw import write_phantoms
path = Path("params.yaml")
params = yaml.safe_load(path.read_text())
for section, changes in SMALL.items():
    params[section].update(changes)
path.write_text(yaml.safe_dump(params, sort_keys=False))
path = Path("plan.yaml")
plan = yaml.safe_load(path.read_text())
plan["policy"].update(bootstrap=200, sensitivity_floor=0.0)
path.write_text(yaml.safe_dump(plan, sort_keys=False))
write_phantoms(Path("data"), women=24, seed=5, long_side=256)
"""
ASK = """
import base64, json, sys, urllib.request
from mammo.datasets.phantom.draw import draw_phantom_dicom
exam = base64.b64encode(draw_phantom_dicom(seed=3)).decode()
asked = {"dataframe_split": {"columns": ["dicom"], "data": [[exam]]}}
request = urllib.request.Request(sys.argv[1], json.dumps(asked).encode(),
                                 {"Content-Type": "application/json"})
[answer] = json.load(urllib.request.urlopen(request, timeout=120))["predictions"]
print(f"probability {answer['probability']:.3f}, box found by the {answer['found_by']}")
"""


class WalkError(Exception):
    """Something on the way is not as it should be."""


@dataclass
class Machine:
    """One of the four: a name, its folder, and what its commands find in their environment."""

    walk: Path
    name: str
    folder: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.walk / self.name).mkdir()
        self.folder = f"/mnt/{self.name}"

    def command(self, text: str) -> list[str]:
        """The command as it is run in the machine's namespace."""
        enter = ENTER.format(
            name=self.name,
            walk=self.walk,
            root=ROOT,
            packages=_packages(),
            folder=self.folder,
            command=shlex.quote(text),
        )
        return ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", enter]

    def environment(self) -> dict[str, str]:
        """Nothing of whoever started this but the way to programs, packages and a proxy."""
        kept = (
            "PATH",
            "LANG",
            "TERM",
            "UV_",
            "PIP_",
            "HTTP",
            "http",
            "NO_PROXY",
            "no_proxy",
            "SSL",
        )
        env = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        path = [part for part in env["PATH"].split(":") if not part.startswith(str(ROOT))]
        home = f"/mnt/{self.name}"
        return {
            **env,
            "PATH": ":".join([f"{self.folder}/.venv/bin", *path]),
            "HOME": home,
            "TMPDIR": home,
            "UV_CACHE_DIR": "/mnt/packages",
            "COLUMNS": "110",
            **self.variables,
        }

    def does(self, text: str, says: str = "", status: int = 0, only: str | None = None) -> str:
        """Run a command, show it, and make sure of its status and of what it says.

        Args:
            text: the command.
            says: words that must be in it.
            status: its exit status.
            only: all that it must say.
        """
        print(f"\n{self.name}$ {text}", flush=True)
        began = time.monotonic()
        done = subprocess.run(
            self.command(text),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
        )
        lines = done.stdout.splitlines()
        for line in lines[-SHOWN:]:
            print(f"    {line}")
        print(f"    [{time.monotonic() - began:.0f} s]", flush=True)
        if done.returncode != status:
            raise WalkError(f"status {done.returncode}, not {status}:\n{done.stdout}")
        if says not in " ".join(done.stdout.split()):
            raise WalkError(f"it does not say {says!r}:\n{done.stdout}")
        if only is not None and done.stdout.strip() != only:
            raise WalkError(f"it says more or less than {only!r}:\n{done.stdout}")
        return done.stdout

    @contextlib.contextmanager
    def runs(self, text: str, until: str) -> Iterator[None]:
        """Let a command run meanwhile; it is ready when a command of this machine succeeds."""
        print(f"\n{self.name}$ {text} &", flush=True)
        log = self.walk / f"{self.name}.log"
        began = time.monotonic()
        with log.open("w") as said:
            child = subprocess.Popen(
                self.command(f"exec {text}"),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            ready = self.command(until)
            while subprocess.run(ready, env=self.environment(), capture_output=True).returncode:
                if child.poll() is not None or time.monotonic() - began > LIMIT:
                    raise WalkError(f"`{text}` is not ready:\n{log.read_text()}")
                time.sleep(2)
            for line in log.read_text().splitlines()[-SHOWN:]:
                print(f"    {line}")
            print(f"    [ready after {time.monotonic() - began:.0f} s]", flush=True)
            yield
        finally:
            # What unshare started has its number; the session is ours alone.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT)
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def clones(self) -> None:
        """Get the project and its environment, by README's words."""
        self.does("git clone -q /mnt/shared/mammoflow.git mammoflow")
        self.folder = f"/mnt/{self.name}/mammoflow"
        self.does(f"make -s env PYTHON={shlex.quote(sys._base_executable)}")  # type: ignore[attr-defined]
        self.does(
            f"git config user.name {self.name} && git config user.email {self.name}@localhost"
        )


def walk(folder: Path) -> None:
    """Go through all of it.

    Raises:
        WalkError: at the first thing that is not as it should be.
    """
    _share_repository(folder / "shared")
    prefect, mlflow = find_free_port(), find_free_port()
    servers = {
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
    }
    answers = (
        f"curl -sf {servers['PREFECT_API_URL']}/health {servers['MLFLOW_TRACKING_URI']}/health"
    )
    builder, server, gpu, auditor = (
        Machine(folder, name) for name in ("builder", "server", "gpu", "auditor")
    )
    _share_data(builder, folder)
    _clone(server)
    server.variables = {"PREFECT_SERVER_API_PORT": str(prefect), "MLFLOW_PORT": str(mlflow)}
    with server.runs("mammoflow up --without gpu", until=answers):
        _retrain_twice(builder, gpu, servers)
        auditor.variables = {"MLFLOW_TRACKING_URI": servers["MLFLOW_TRACKING_URI"]}
        _audit_and_ask(auditor)
    _move(server)
    with server.runs("mammoflow up --without gpu", until=answers):
        auditor.does("mammoflow audit 2 --quick", says="RECORDS AGREE")
        auditor.does("mammoflow audits 2", says="records agree, not re-run")


def _share_repository(shared: Path) -> None:
    """The bare repository of git that all machines clone: this commit, and no tag."""
    shared.mkdir()
    bare = shared / "mammoflow.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(ROOT), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "symbolic-ref", "HEAD", "refs/heads/main"], check=True)
    subprocess.run(["git", "-C", str(bare), "update-ref", "refs/heads/main", _head()], check=True)
    subprocess.run(f"git -C {bare} tag | xargs -r git -C {bare} tag -d", shell=True, check=True)


def _clone(machine: Machine) -> None:
    """A machine clones, and sees nothing of the others: the two folders' names, empty."""
    machine.clones()
    machine.does(f"ls -A {machine.walk} {ROOT} | grep -c .", only="2")


def _share_data(builder: Machine, folder: Path) -> None:
    """The builder clones, makes the small set, and pushes it with DVC's remote."""
    _clone(builder)
    builder.does(f"rm -rf data.dvc dvc.lock && python -c {shlex.quote(SMALL_SET)}")
    builder.does("dvc remote add -d team /mnt/shared/dvc && dvc add -q data")
    builder.does(
        "git add -A && git commit -qm 'our data, our remote' && git push -q origin HEAD:main"
    )
    builder.does("dvc push data.dvc", says="file")


def _retrain_twice(builder: Machine, gpu: Machine, servers: dict[str, str]) -> None:
    """The builder retrains with the GPU worker; a pushed commit is then retrained by the watch."""
    _clone(gpu)
    gpu.variables = servers
    with gpu.runs("mammoflow up --workers gpu", until="test -e .prefect/up"):
        builder.variables = servers
        said = builder.does("mammoflow retrain --pool gpu", says=f"{MODEL} version 1, alias")
        if "version 1 is published" not in " ".join(said.split()):
            raise WalkError("version 1 was not published")
        builder.does("sed -i 's/  beta: .*/  beta: 1.0/' params.yaml")
        builder.does("git commit -qam 'another beta' && git push -q origin HEAD:main")
        builder.does("prefect deployment run watch/watch", says="Created flow run")
        # The server's worker does the rest: the watch, a retrain, the gate.
        _wait_for(builder, "mammoflow aliases | grep '2 is champion'")


def _audit_and_ask(auditor: Machine) -> None:
    """The auditor audits both versions, and asks the champion about an image."""
    _clone(auditor)
    said = auditor.does("mammoflow audit 1", says="REPRODUCED BIT FOR BIT")
    if not re.search(r"needs [\d.]+ [GM]B from DVC's remote", said):
        raise WalkError("the audit did not say what it needs from DVC's remote")
    auditor.does("mammoflow audit 2 --quick", says="RECORDS AGREE")
    auditor.does("mammoflow audits 1", says="reproduced bit for bit")
    port = find_free_port()
    serve = f"mlflow models serve -m models:/{MODEL}@champion --env-manager local --port {port}"
    with auditor.runs(serve, until=f"curl -sf http://127.0.0.1:{port}/ping"):
        auditor.does(
            f"python -c {shlex.quote(ASK)} http://127.0.0.1:{port}/invocations",
            says="probability",
        )


def _move(server: Machine) -> None:
    """The server's clone moves to another folder, with a new environment."""
    server.does("cd .. && mv mammoflow moved && cd moved && rm -rf .venv")
    server.folder = "/mnt/server/moved"
    server.does(f"make -s env PYTHON={PYTHON}")


@functools.cache
def _packages() -> Path:
    """Uv's cache, as the mirror of packages that they all reach."""
    said = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout
    Path(said.strip()).mkdir(parents=True, exist_ok=True)
    return Path(said.strip())


def _head() -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _wait_for(machine: Machine, text: str) -> None:
    """Ask until a command succeeds."""
    deadline = time.monotonic() + LIMIT
    while subprocess.run(
        machine.command(text), env=machine.environment(), capture_output=True
    ).returncode:
        if time.monotonic() > deadline:
            raise WalkError(f"{machine.name}: `{text}` never succeeded")
        time.sleep(5)
    machine.does(text)


def main() -> int:
    """Walk, and say how long it took."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="walk-", ignore_cleanup_errors=True) as folder:
        try:
            walk(Path(folder))
        except WalkError as error:
            print(f"\nstumbled: {error}")
            return 1
        finally:
            print(f"\n{(time.monotonic() - began) / 60:.1f} minutes")
    print("walked from clone to audit, and every joint held")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
