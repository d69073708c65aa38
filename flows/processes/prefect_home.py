"""Where Prefect's state lies in a clone, unless PREFECT_HOME says otherwise."""

from pathlib import Path

HOME = Path(".prefect")
"""The folder of all of it, below the clone."""

DATABASE = HOME / "prefect.db"
"""Prefect's own database, if there is no other."""

LOGS = HOME / "up"
"""What the programs of `mammoflow up` print: a file for each."""
