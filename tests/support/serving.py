"""The service in a process of its own, over a predictor's folder instead of a registry.

python -m tests.support.serving FOLDER PORT QUEUE BYTES
"""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.imports import ROOT
from tests.support.toys import environment, find_free_port

if TYPE_CHECKING:
    from flows.serving.load import LoadedModel

QUEUE = 32
BYTES, FILES = 2**22, 8
"""What a request of this service may have at most."""


def load_folder(folder: Path, version: int | None = None) -> "LoadedModel":
    """A predictor's folder, as if it came from the registry."""
    # Here, since each process that reads files runs this module as well: with torch in it, it would
    # have no address space left for a file.
    from flows.serving.load import LoadedModel
    from mammo.serving.exams import name_code
    from mammo.serving.finding import Model
    from mammo.serving.predictor import load_predictor

    return LoadedModel(load_predictor(folder), Model("toy", version, None, None, name_code()))


@dataclass(frozen=True)
class Server:
    """A service at work."""

    url: str
    process: "subprocess.Popen[bytes]"

    def post(
        self, body: bytes, kind: str = "application/dicom", query: str = "", accept: str = "*/*"
    ) -> tuple[int, bytes]:
        """Status and body of the answer to `POST /predict`."""
        headers = {"Content-Type": kind, "Accept": accept}
        return self.ask(urllib.request.Request(f"{self.url}/predict{query}", body, headers))

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer to GET."""
        return self.ask(urllib.request.Request(f"{self.url}{path}"))

    def ask(self, request: urllib.request.Request) -> tuple[int, bytes]:
        """Status and body of an answer, whatever the status."""
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def serving(folder: Path, queue: int = QUEUE, body: int = BYTES) -> Iterator[Server]:
    """The service over a predictor's folder, in a process of its own."""
    port = find_free_port()
    command = [sys.executable, "-m", "tests.support.serving", str(folder)]
    command += map(str, (port, queue, body))
    process = subprocess.Popen(command, cwd=ROOT, env=environment())
    server = Server(f"http://127.0.0.1:{port}", process)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                if server.get("/ready")[0] == 200:
                    break
            except OSError:
                pass
            assert process.poll() is None, "the service ended before it answered"
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def make_form(files: dict[str, bytes], boundary: str = "b0undary") -> tuple[bytes, str]:
    """A form with files, and its content type."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: application/dicom\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files.items()
    ]
    end = f"--{boundary}--\r\n".encode()
    return b"".join((*parts, end)), f"multipart/form-data; boundary={boundary}"


def main() -> None:
    """Serve a folder."""
    import uvicorn

    from flows.serving.desk import Desk
    from flows.serving.service import make_app
    from flows.serving.uploads import Limits

    folder = Path(sys.argv[1])
    port, queue, body = map(int, sys.argv[2:])
    app = make_app(Desk(load_folder(folder, 1), workers=2), Limits(body, FILES, 20), queue)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
