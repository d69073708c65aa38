"""The mark of tests that need a GPU: `pytest -rs -m gpu` runs them alone, and says why if not."""

import pytest
import torch

needs_a_card = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU on this machine"),
]
