"""One module per stage of dvc.yaml: read parameters and inputs, call `mammo`, write outputs."""

import os

# Threads that wait for each other sleep instead of spinning: on a machine with other work to do,
# training was measured 2.5 to 6 times faster, to the same bytes. OpenMP reads it when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
