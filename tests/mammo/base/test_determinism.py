"""A stage's seed follows from the pipeline's and from its name alone."""

from hypothesis import given
from hypothesis import strategies as st

from mammo.base.determinism import derive_seed


@given(st.integers(0, 2**40), st.text())
def test_a_stages_seed_is_one_that_every_generator_takes(seed: int, name: str) -> None:
    assert 0 <= derive_seed(seed, name) < 2**31
    assert derive_seed(seed, name) == derive_seed(seed, name)


def test_other_seeds_and_other_names_give_other_seeds() -> None:
    found = {derive_seed(seed, f"trial{number}") for seed in range(20) for number in range(20)}
    assert len(found) == 400
