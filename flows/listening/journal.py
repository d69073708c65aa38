"""What the node did, one line of JSON a step: without names, and without UIDs unless asked for.

A line is written after its step is on the disk. A kill between the two costs the line, never the
step; the next start says what it found.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mammo.serving.finding import hash_ids

JOURNAL = "audit.jsonl"
"""Its file in the spool."""


@dataclass(frozen=True)
class Journal:
    """The file JOURNAL, opened for each line: it may be moved away at any time."""

    file: Path
    identified: bool = False  # with the UIDs of studies and images, not hashes of them

    def add(self, step: str, **facts: object) -> None:
        """Write a line: the time, the step and its facts; None is left out."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {name: fact for name, fact in facts.items() if fact is not None}
        line = json.dumps({"time": time, "step": step, **known}) + "\n"
        handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def name_study(self, uid: str) -> str:
        """How lines name a study."""
        return uid if self.identified else hash_ids("study", uid)

    def name_image(self, uid: str) -> str:
        """How lines name an image: by default as `mammoflow predict` names it in its outputs."""
        return uid if self.identified else hash_ids("image", uid, "")
