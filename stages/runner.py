"""How a stage's `main` is run from the command line."""

import errno
import sys
from collections.abc import Callable

from mammo.base.errors import UserError


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; what the user can mend becomes one line on stderr and exit status 1."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        print(f"error: the disk is full{where}: free some of it and run again", file=sys.stderr)
        raise SystemExit(1) from None
