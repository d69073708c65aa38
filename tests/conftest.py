"""What holds for all tests of a session."""

import mammo  # noqa: F401  (pins what libraries read as they load: before any test loads one)
