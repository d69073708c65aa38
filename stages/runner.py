"""How a stage's `main` is run from the command line, and where it keeps its checkpoints."""

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mammo.base.determinism import check_pins
from mammo.base.errors import UserError


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; an error that the user can correct becomes one line on stderr and status 1."""
    try:
        check_pins()
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        print(f"error: the disk is full{where}: free space and run again", file=sys.stderr)
        raise SystemExit(1) from None


@contextmanager
def keep_checkpoint_folder(stage: str) -> Iterator[Path]:
    """Yield the folder for a stage's checkpoints; when the stage has succeeded, it is removed.

    It lies outside outputs/, which DVC empties before it runs a stage, and where
    MAMMOFLOW_CHECKPOINTS says if the current folder does not last.
    """
    folder = Path(os.environ.get("MAMMOFLOW_CHECKPOINTS") or "checkpoints") / stage
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
