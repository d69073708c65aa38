"""The tests; importing them pins what libraries read as they load, before any test loads one."""

import mammo  # noqa: F401
