"""How a stage's `main` is run from the command line."""

import sys
from collections.abc import Callable

from mammo.errors import UserError


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; a UserError becomes one line on stderr and exit status 1, no traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
