"""Where networks compute: a card if there is one, or what MAMMOFLOW_DEVICE says."""

from pathlib import Path

import pytest
import torch

from mammo.base.errors import UserError
from mammo.kept import checkpoint
from mammo.learning.device import choose_device, describe_device, find_cuda_versions


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As on a machine with two cards, for torch; the list gets those that were made current."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("said", "chosen"),
    [(None, "cuda:0"), ("", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_a_card_is_taken_if_there_is_one_and_nothing_else_is_said(
    said: str | None, chosen: str, two_cards: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAMMOFLOW_DEVICE", raising=False)
    if said is not None:
        monkeypatch.setenv("MAMMOFLOW_DEVICE", said)
    device = choose_device()
    assert device == torch.device(chosen)
    assert two_cards == ([] if chosen == "cpu" else [device.index])


@pytest.mark.usefixtures("no_card")
@pytest.mark.parametrize("said", [None, "", "cpu"])
def test_without_a_card_it_is_the_cpu(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAMMOFLOW_DEVICE", raising=False)
    if said is not None:
        monkeypatch.setenv("MAMMOFLOW_DEVICE", said)
    assert choose_device() == torch.device("cpu")


@pytest.mark.parametrize("said", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:0,1", "mps"])
def test_a_device_that_is_none_is_named(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMOFLOW_DEVICE", said)
    with pytest.raises(UserError, match=rf"MAMMOFLOW_DEVICE = '{said}' is no device: write cpu,"):
        choose_device()


@pytest.mark.usefixtures("no_card")
@pytest.mark.parametrize("said", ["cuda", "cuda:0", "cuda:1"])
def test_a_card_where_there_is_none_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMOFLOW_DEVICE", said)
    with pytest.raises(UserError, match=f"'{said}': torch sees no card"):
        choose_device()


@pytest.mark.usefixtures("two_cards")
def test_a_card_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cuda:2")
    with pytest.raises(UserError, match="'cuda:2': the last card is cuda:1"):
        choose_device()


@pytest.mark.usefixtures("two_cards")
def test_on_a_card_only_deterministic_kernels_and_no_tf32_are_used() -> None:
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    choose_device()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"  # type: ignore[attr-defined]


def test_on_a_cpu_a_checkpoint_is_known_by_what_it_was_known_by_before() -> None:
    assert checkpoint.describe_machine(torch.device("cpu")) == {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": "none",
    }


def test_on_a_card_the_versions_of_cuda_cudnn_and_the_driver_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 580.65.06\necho 580.65.06\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    find_cuda_versions.cache_clear()
    found = describe_device(torch.device("cuda", 0))
    find_cuda_versions.cache_clear()
    assert set(found) == {"gpu", "cuda", "cudnn", "driver"}
    assert (found["gpu"], found["driver"]) == ("NVIDIA H200", "580.65.06")
    assert found["cuda"] == torch.version.cuda


def test_a_driver_that_nobody_tells_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    find_cuda_versions.cache_clear()
    assert find_cuda_versions()["driver"] == "unknown"
    find_cuda_versions.cache_clear()
