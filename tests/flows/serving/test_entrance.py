"""Requests come in up to a limit, and nothing of their files stays."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge
from starlette.exceptions import HTTPException

from flows.serving.entrance import Entrance


@pytest.fixture
def gauge() -> Gauge:
    return Gauge("inside", "Requests.", registry=CollectorRegistry())


def count(gauge: Gauge) -> float:
    (metric,) = gauge.collect()
    return metric.samples[0].value


def test_a_request_beyond_the_limit_is_refused_until_another_one_ends(gauge: Gauge) -> None:
    entrance = Entrance(1, gauge)
    with entrance.open():
        entrance.require_room()
        with entrance.admit():
            assert count(gauge) == 1
            with pytest.raises(HTTPException) as refused:
                entrance.require_room()
            assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "1"})
        entrance.require_room()
        assert count(gauge) == 0


def test_the_files_of_a_request_go_with_it_even_if_it_fails(gauge: Gauge) -> None:
    entrance = Entrance(2, gauge)
    folders: list[Path] = []

    def fail() -> None:
        with entrance.admit() as folder:
            (folder / "1").write_bytes(b"of a woman")
            folders.append(folder)
            raise KeyError

    with entrance.open():
        with pytest.raises(KeyError):
            fail()
        assert not folders[0].exists()
        assert folders[0].parent.exists()
    assert not folders[0].parent.exists()
