"""One module per stage of dvc.yaml: read parameters and inputs, call `mammo`, write outputs."""

import os

import mammo  # noqa: F401  (pins what libraries read as they load: before a stage loads one)

# How long threads that wait for each other spin before they sleep. Measured on two cores, to the
# same bytes: without any spinning training took 1.3 to 2 times longer, and with OpenMP's own, long
# one 5 times longer as soon as the machine had other work to do. Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
