"""What holds for all tests of a session."""

import os

from mammo.reproducibility import INSTRUCTION_SETS

# Libraries read these when they compute for the first time, which here a test may do that pins
# nothing; its bits would then be others than those of a process of its own.
os.environ.update(INSTRUCTION_SETS)
