"""One module per stage of dvc.yaml: read parameters and inputs, call `mammo`, write outputs."""

import mammo  # noqa: F401  (pins what libraries read as they load: before a stage loads one)
