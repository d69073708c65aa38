"""The training loop, used by tuning and training alike.

After each epoch the network scores the validation women, per breast: the maximum over its views,
as the evaluation does. With `classifier.average` it is an average of the network's weights over the
steps that is scored and kept. The best epoch by `classifier.select_by` is kept. Given a folder for
checkpoints, a training that was cut short goes on after the last epoch that it had ended.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mammo.base.errors import UserError
from mammo.base.progress import say, track
from mammo.base.settings import Classifier as Settings
from mammo.classifier.inputs import Epoch, Pictures, examples, loader, normalised
from mammo.classifier.network import Classifier, build_classifier
from mammo.classifier.predict import LONG, predict_logits
from mammo.data.splits import BREAST
from mammo.data.tables import MANIFEST, ROIS, SPLIT, read_table
from mammo.learning import checkpoint
from mammo.learning.checkpoint import Checkpoint, prefixed, unprefixed

WARM_UP = 0.1  # of all steps

Scores = dict[str, float]


class TrainingDivergedError(UserError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Examples:
    """Images with labels: N pictures, (N,) targets of 0 or 1, (N,) numbers of their breasts."""

    pictures: Pictures
    targets: NDArray[np.int64]
    breasts: NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """A trained network, on the CPU in eval mode, and how it came about."""

    model: Classifier
    best_epoch: int  # counted from 1; the network is as it was after this one
    history: list[Scores]  # of each epoch: see `fit`


def gather(table: pd.DataFrame, split: str, folder: Path, settings: Settings) -> Examples:
    """The examples of one split.

    Args:
        table: as `inputs.examples` returns it.
        split: train, validation or test.
        folder: the one that the table's paths start from.

    Raises:
        UserError: if they are all of one class, or an image cannot be read.
    """
    part = table[table["split"] == split]
    if part["target"].nunique() < 2:
        raise UserError(
            f"the {split} split needs images with and without {' or '.join(settings.target)} to"
            f" train a classifier, but of its {len(part)} images {part['target'].sum()} have it"
        )
    return Examples(
        pictures=Pictures([folder / path for path in part["path"]], settings),
        targets=np.array(part["target"], np.int64),
        breasts=np.array(part.groupby(BREAST).ngroup(), np.int64),
    )


def read_examples(
    settings: Settings, manifest: Path, split: Path, crops: Path
) -> tuple[Examples, Examples]:
    """The examples to learn from and those to choose on, from the tables that say which they are.

    Args:
        settings: of the classifier.
        manifest: table of the images.
        split: table of the women.
        crops: folder of crop_rois.

    Raises:
        UserError: if a table cannot be read or does not fit the others, or as `gather`.
    """
    table = examples(
        read_table(manifest, MANIFEST),
        read_table(split, SPLIT),
        read_table(crops / "rois.csv", ROIS),
        settings,
    )
    images = crops / "images"
    return gather(table, "train", images, settings), gather(table, "validation", images, settings)


def fit(
    settings: Settings,
    train: Examples,
    validation: Examples,
    seed: int,
    on_epoch: Callable[[Scores], None] = lambda scores: None,
    checkpoints: Path | None = None,
) -> Fit:
    """Train a network: AdamW, the backbone at its own rate, a warm-up and then half a cosine.

    Args:
        settings: what to build and how to train it.
        train: to learn from.
        validation: to choose the best epoch on; ends training when `patience` epochs bring nothing.
        seed: of the head's first weights, the order, the augmentation and the dropout.
        on_epoch: called after each epoch with its scores: epoch (from 1), train_loss (of the
            augmented and balanced images), validation_loss (per image), validation_auroc and
            validation_average_precision (per breast). What it raises ends the training. Epochs
            taken from a checkpoint are told first, as if they had just been.
        checkpoints: a folder for the state after each epoch. Without it a training that is cut
            short starts again; the result is the same. It holds what nobody needs once the
            result is safe.

    Raises:
        TrainingDivergedError: if the loss is not a number any more.
        UserError: as `build_classifier`.
    """
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_classifier(settings).to(device)
    weight = settings.balance_factor if settings.balance == "weight" else 1.0
    loss_of = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weight, device=device))
    rate = settings.learning_rate
    groups = [
        {"params": learning(model.backbone), "lr": rate * settings.backbone_rate},
        {"params": learning(model.head), "lr": rate},
    ]
    # Fused: else it takes square roots of MKL, whose bits depend on the maker of the processor.
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        weight_decay=settings.weight_decay,
        fused=True,
    )
    averaged = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average))
        if settings.average
        else None
    )
    judged = model if averaged is None else averaged.module
    batches = len(loader(Epoch(train.pictures, train.targets, settings, seed, 1), settings))

    history: list[Scores] = []
    best = -1
    weights: dict[str, Tensor] = {}
    name = ""
    if checkpoints is not None:
        facts = [settings.model_dump(mode="json"), seed, checkpoint.machinery()]
        name = checkpoint.key(__name__, facts, contents(train, validation), model.state_dict())
        found = checkpoint.load(checkpoints, name)
        if found is not None:
            history, best = found.facts["history"], found.facts["best"]
            weights = unprefixed("best", found.tensors)
            checkpoint.restore(found.tensors, model, optimizer)
            if averaged is not None:
                averaged.load_state_dict(unprefixed("average", found.tensors))
            say(f"going on after epoch {len(history)}, from a checkpoint")
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: rate_at(step, batches * settings.epochs),
        last_epoch=len(history) * batches - 1,
    )
    for scores in list(history):
        on_epoch(scores)
    for epoch in range(len(history) + 1, settings.epochs + 1):
        if epoch - 2 - best >= settings.patience:
            say(f"no better for {settings.patience} epochs: training stops")
            break
        model.train()
        data = loader(Epoch(train.pictures, train.targets, settings, seed, epoch), settings)
        title = f"epoch {epoch} of {settings.epochs}"
        total, images = 0.0, 0
        for pictures, targets in track(data, title, batches) if batches > LONG else data:
            optimizer.zero_grad()
            loss = loss_of(model(normalised(pictures.to(device))), targets.to(device))
            loss.backward()
            optimizer.step()
            schedule.step()
            if averaged is not None:
                averaged.update_parameters(model)
            total += loss.item() * len(targets)
            images += len(targets)
        logits = predict_logits(judged, validation.pictures, settings)
        scores = {"epoch": epoch, "train_loss": total / images}
        if not (math.isfinite(total) and np.isfinite(logits).all()):
            raise TrainingDivergedError(
                f"training diverged in epoch {epoch} with the learning rate {rate:g}: lower"
                " classifier.learning_rate or the range to tune it in"
            )
        scores |= {f"validation_{name}": x for name, x in score(validation, logits).items()}
        history.append(scores)
        if best < 0 or rank(scores, settings) > rank(history[best], settings):
            best = epoch - 1
            weights = copy.deepcopy(judged.state_dict())
        say(f"{title}: " + ", ".join(f"{n} {x:.4f}" for n, x in scores.items() if n != "epoch"))
        if checkpoints is not None:
            state = checkpoint.state_of(model, optimizer) | prefixed("best", weights)
            if averaged is not None:
                state |= prefixed("average", averaged.state_dict())
            known = {"history": history, "best": best}
            checkpoint.save(checkpoints, name, Checkpoint(state, known))
        on_epoch(scores)
    model.load_state_dict(weights)
    return Fit(model.cpu().eval(), best + 1, history)


def contents(*sets: Examples) -> Iterator[bytes]:
    """What there is to learn from, as bytes."""
    for part in sets:
        pictures = part.pictures
        for picture in pictures.cache if pictures.cache is not None else pictures.rois:
            yield picture.read_bytes() if isinstance(picture, Path) else picture.tobytes()
        yield part.targets.tobytes()
        yield part.breasts.tobytes()


def score(examples: Examples, logits: NDArray[np.float64]) -> Scores:
    """Mean cross-entropy per image; auROC and average precision per breast, by its highest view."""
    breasts = (
        pd.DataFrame({"target": examples.targets, "logit": logits}).groupby(examples.breasts).max()
    )
    loss = binary_cross_entropy_with_logits(
        torch.from_numpy(logits), torch.from_numpy(examples.targets).double()
    )
    return {
        "loss": float(loss),
        "auroc": float(roc_auc_score(breasts["target"], breasts["logit"])),
        "average_precision": float(average_precision_score(breasts["target"], breasts["logit"])),
    }


def rank(scores: Scores, settings: Settings) -> tuple[float, float]:
    """What orders epochs, higher is better: `select_by`, then the loss where it is equal."""
    loss = -scores["validation_loss"]
    if settings.select_by == "loss":
        return loss, loss
    return scores[f"validation_{settings.select_by}"], loss


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def rate_at(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step (from 0): a line up, then a cosine down to 0."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
