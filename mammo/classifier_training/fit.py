"""The training loop, used by tuning and training alike.

After each epoch the network scores the validation women, per breast: the maximum over its views,
as the evaluation does. With `classifier.average`, an average of the network's weights over the
steps is scored and kept. The best epoch by `classifier.select_by` is kept. With a folder for
checkpoints, a training that was interrupted goes on after its last complete epoch.

Several processes can train one network (`mammo.learning.parallel`): each takes its part of every
batch, and PyTorch's DistributedDataParallel averages their gradients, so that all take the same
step. They share out the validation pictures as well, and all know the same scores.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mammo.base.determinism import derive_seed
from mammo.base.errors import UserError
from mammo.base.progress import say
from mammo.base.settings import Classifier as Settings
from mammo.classifier.inputs import (
    Counted,
    Epoch,
    count_in_epoch,
    load_epoch,
    normalise,
)
from mammo.classifier.network import BATCH_NORMS, Classifier, build_classifier
from mammo.classifier.predict import predict_logits
from mammo.classifier_training.examples import Examples, dump_examples
from mammo.kept import checkpoint
from mammo.kept.checkpoint import Checkpoint
from mammo.learning.device import choose_device
from mammo.learning.parallel import WHOLE, Part, sum_parts
from mammo.learning.weights import add_prefix, select_prefix

WARM_UP = 0.1  # of all steps

Scores = dict[str, float]


class TrainingDivergedError(UserError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Fit:
    """A trained network, on the CPU in eval mode, and the scores of its epochs."""

    model: Classifier
    best_epoch: int  # counted from 1; the network is as it was after this one
    history: list[Scores]  # of each epoch: see `fit`


def fit(
    settings: Settings,
    train: Examples,
    validation: Examples,
    seed: int,
    on_epoch: Callable[[Scores], None] | None = None,
    checkpoints: Path | None = None,
    part: Part = WHOLE,
) -> Fit:
    """Train a network: AdamW, the backbone at its own rate, a warm-up and then half a cosine.

    Args:
        settings: what to build and how to train it.
        train: the examples to learn from.
        validation: the examples that decide which epoch is the best one. Training stops when
            `patience` epochs in a row bring no improvement.
        seed: of the head's first weights, the order, the augmentation and the dropout.
        on_epoch: called after each epoch with its scores: epoch (from 1), train_loss (of the
            augmented and balanced images), validation_loss (per image), validation_auroc and
            validation_average_precision (per breast). An exception that it raises ends the
            training. Epochs from a checkpoint are reported first, in the same way.
        checkpoints: a folder for the state after each epoch. Without it, a training that was
            interrupted starts again; the result is the same. Once the result is safe, the folder
            is of no use.
        part: which one this is of several processes that train together, each with the same
            arguments. All have the same result; the first one alone writes checkpoints.

    Raises:
        TrainingDivergedError: if the loss is not a number any more.
        UserError: as `build_classifier`; or if several processes are to train a network whose
            batch norm learns.
    """
    torch.manual_seed(seed)
    state = _start(settings, part)
    save = None
    if checkpoints is not None:
        save = _resume(state, train, validation, seed, checkpoints)
    if on_epoch is not None:
        for scores in list(state.history):
            on_epoch(scores)
    batches = math.ceil(count_in_epoch(train.targets, settings) / settings.batch_size)
    schedule = _build_schedule(
        state.optimizer, batches * settings.epochs, len(state.history) * batches
    )
    for epoch in range(len(state.history) + 1, settings.epochs + 1):
        if epoch - 1 - state.best_epoch >= settings.patience:
            say(f"no better for {settings.patience} epochs: training stops")
            break
        data = Epoch(train.pictures, train.targets, settings, seed, epoch)
        if part.count > 1:
            _start_epoch_together(state, seed, epoch)
        loaded = load_epoch(data, settings, state.device, _name_epoch(epoch, settings), part)
        train_loss = _train_epoch(state, loaded, schedule)
        scores = _score_epoch(state, validation, epoch, train_loss)
        _record(state, scores)
        if save is not None and part.is_first:
            save()
        if on_epoch is not None:
            on_epoch(scores)
    state.model.load_state_dict(state.best_weights)
    return Fit(state.model.cpu().eval(), state.best_epoch, state.history)


@dataclass
class _State:
    """A training after an epoch: what its next epoch starts from."""

    settings: Settings
    model: Classifier
    optimizer: torch.optim.Optimizer
    average: Classifier | None  # of the model's weights over the steps, if it is wanted
    history: list[Scores]
    best_epoch: int  # counted from 1; 0 before the first epoch
    best_weights: dict[str, Tensor]
    part: Part  # of several processes
    learner: nn.Module  # the model; of several processes, inside what averages their gradients

    @property
    def scored_model(self) -> Classifier:
        """The network that is scored and kept."""
        return self.model if self.average is None else self.average

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return next(self.model.parameters()).device


def _start(settings: Settings, part: Part) -> _State:
    """Build the network, on the device that `choose_device` chooses, and its optimizer."""
    model = build_classifier(settings).to(choose_device())
    if part.count > 1:
        _require_frozen_batch_norm(model, settings, part)
    rate = settings.learning_rate
    groups = [
        {"params": find_trainable(model.backbone), "lr": rate * settings.backbone_rate},
        {"params": find_trainable(model.head), "lr": rate},
    ]
    # Fused: otherwise AdamW takes MKL's square roots, whose bits depend on the processor's maker.
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        weight_decay=settings.weight_decay,
        fused=True,
    )
    average = copy.deepcopy(model) if settings.average else None
    return _State(settings, model, optimizer, average, [], 0, {}, part, model)


def _require_frozen_batch_norm(model: Classifier, settings: Settings, part: Part) -> None:
    """Refuse a batch norm that learns: its statistics would be those of a part of the batch.

    They would differ from process to process. torch's own remedy, SyncBatchNorm, works on GPUs
    only.
    """
    if any(isinstance(m, BATCH_NORMS) and m.training for m in model.train().modules()):
        raise UserError(
            f"classifier.processes = {part.count}, but a batch norm of {settings.backbone} learns,"
            " and each process would see a part of the batch only: set"
            " classifier.freeze_batch_norm to true, or processes to 1, or choose a backbone"
            " without batch norm, such as convnext_tiny"
        )


def _start_epoch_together(state: _State, seed: int, epoch: int) -> None:
    """Make an epoch of several processes start from (seed, epoch, process), as its pictures do.

    Each process draws its own dropout, and a training that goes on draws the same. What averages
    gradients is made anew: it sorts them after its first step, which may decide how they are added.

    Raises:
        UserError: the processes do not go on after the same epoch.
    """
    done = len(state.history)
    if sum_parts([done], state.device) != [done * state.part.count]:
        raise UserError(
            "the processes of a training did not find the same checkpoint: run the stage again"
        )
    torch.manual_seed(derive_seed(seed, f"epoch {epoch}, process {state.part.index}"))
    cards = None if state.device.type == "cpu" else [state.device]
    state.learner = DistributedDataParallel(state.model, device_ids=cards)


def _resume(
    state: _State, train: Examples, validation: Examples, seed: int, checkpoints: Path
) -> Callable[[], None]:
    """Go on from this training's checkpoint in a folder, if there is one.

    Returns:
        A function that writes the state to the checkpoint.
    """
    machine = checkpoint.describe_machine(state.device)
    facts = [state.settings.model_dump(mode="json"), seed, machine]
    data = dump_examples(train, validation)
    name = checkpoint.hash_inputs(__name__, facts, data, state.model.state_dict())
    found = checkpoint.load(checkpoints, name)
    if found is not None:
        state.history, state.best_epoch = found.facts["history"], found.facts["best_epoch"]
        state.best_weights = select_prefix("best", found.tensors)
        checkpoint.restore(found.tensors, state.model, state.optimizer)
        if state.average is not None:
            state.average.load_state_dict(select_prefix("average", found.tensors))
        say(f"going on after epoch {len(state.history)}, from a checkpoint")

    def save() -> None:
        tensors = checkpoint.collect_state(state.model, state.optimizer)
        tensors |= add_prefix("best", state.best_weights)
        if state.average is not None:
            tensors |= add_prefix("average", state.average.state_dict())
        known = {"history": state.history, "best_epoch": state.best_epoch}
        checkpoint.save(checkpoints, name, Checkpoint(tensors, known))

    return save


def _build_schedule(optimizer: torch.optim.Optimizer, steps: int, done: int) -> LambdaLR:
    """Build the schedule of the learning rate over all steps, `done` of which have been taken."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimizer, lambda step: compute_rate_factor(step, steps), last_epoch=done - 1)


def _train_epoch(
    state: _State, batches: Iterable[tuple[Tensor, Tensor, Counted]], schedule: LambdaLR
) -> float:
    """Take one step for each batch; return the mean loss of an image."""
    settings, device = state.settings, state.device
    weight = settings.balance_factor if settings.balance == "weight" else 1.0
    loss_of = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weight, device=device))
    state.model.train()
    # On the device, and in double precision, as Python would add: nothing in the loop waits for a
    # GPU.
    total, images = torch.zeros((), dtype=torch.float64, device=device), 0
    first = not state.history
    for pictures, targets, (counted, in_all) in batches:
        state.optimizer.zero_grad()
        loss = loss_of(state.learner(normalise(pictures)), targets)
        # Averaged over the processes, this is the gradient of the mean over the batch of all.
        factor = counted * state.part.count / in_all
        (loss if factor == 1 else loss * factor).backward()
        state.optimizer.step()
        schedule.step()
        if state.average is not None:
            update_average(state.average, state.model, 0.0 if first else settings.average)
        first = False
        total += loss.detach().double() * counted
        images += counted
    if state.part.count > 1:
        all_losses, all_images = sum_parts([total.item(), images], device)
        return all_losses / all_images
    return total.item() / images


@torch.no_grad()
def update_average(average: Classifier, model: Classifier, kept: float) -> None:
    """Move an average of a network's weights towards the network's own.

    torch's own AveragedModel would wait for a GPU in each step, to know whether it is the first.

    Args:
        average: is changed; its buffers become the network's.
        model: the network after a step.
        kept: the share of the average that stays. 0: it becomes the network.
    """
    pairs = list(zip(average.parameters(), model.parameters(), strict=True))
    if kept:
        averaging: Any = get_ema_multi_avg_fn  # without types in torch
        averaging(kept)([old for old, _ in pairs], [new for _, new in pairs], None)
    for old, new in [
        *zip(average.buffers(), model.buffers(), strict=True),
        *([] if kept else pairs),
    ]:
        old.copy_(new)


def _score_epoch(state: _State, validation: Examples, epoch: int, train_loss: float) -> Scores:
    """Score the validation images after an epoch; `fit` says what the scores are.

    Raises:
        TrainingDivergedError: if the epoch's loss or a logit is not finite.
    """
    logits = predict_logits(state.scored_model, validation.pictures, state.settings, state.part)
    if not (math.isfinite(train_loss) and np.isfinite(logits).all()):
        raise TrainingDivergedError(
            f"training diverged in epoch {epoch} with the learning rate "
            f"{state.settings.learning_rate:g}: lower classifier.learning_rate or the range to "
            "tune it in"
        )
    found = {f"validation_{name}": x for name, x in score(validation, logits).items()}
    return {"epoch": epoch, "train_loss": train_loss, **found}


def _record(state: _State, scores: Scores) -> None:
    """Add an epoch's scores to the history; keep the weights if it is the best epoch so far."""
    best = state.history[state.best_epoch - 1] if state.history else None
    state.history.append(scores)
    if best is None or rank(scores, state.settings) > rank(best, state.settings):
        state.best_epoch = len(state.history)
        state.best_weights = copy.deepcopy(state.scored_model.state_dict())
    values = ", ".join(f"{name} {x:.4f}" for name, x in scores.items() if name != "epoch")
    say(f"{_name_epoch(len(state.history), state.settings)}: {values}")


def _name_epoch(epoch: int, settings: Settings) -> str:
    return f"epoch {epoch} of {settings.epochs}"


def score(examples: Examples, logits: NDArray[np.float64]) -> Scores:
    """Mean cross-entropy per image; auROC and average precision per breast, by its highest view."""
    # When an epoch has ended: with SciPy it takes a second, and a training can begin without.
    from sklearn.metrics import average_precision_score, roc_auc_score

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
    """What epochs are ordered by, higher is better: `select_by`, then the loss if that is equal."""
    loss = -scores["validation_loss"]
    if settings.select_by == "loss":
        return loss, loss
    return scores[f"validation_{settings.select_by}"], loss


def find_trainable(module: nn.Module) -> list[nn.Parameter]:
    """List the parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def compute_rate_factor(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step (from 0): a line up, then a cosine down to 0."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
