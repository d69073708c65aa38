"""The state of a detector's training after an epoch, and its restoration: see `checkpoint`.

ultralytics' own way to resume a training does not keep the random generators, the order of the
images, and single precision.
"""

import random
from typing import Any

import numpy as np
import torch

from mammo.kept.checkpoint import Checkpoint, collect_state, restore
from mammo.learning.weights import add_prefix, select_prefix


def collect_trainer_state(trainer: Any) -> Checkpoint:
    """Collect what ultralytics' trainer, and our additions to it, change from epoch to epoch."""
    kind, numbers, position, has_gauss, gauss = np.random.get_state()
    tensors = {
        **collect_state(trainer.model, trainer.optimizer),
        **add_prefix("average", trainer.ema.ema.state_dict()),
        **add_prefix("best", trainer.best_weights),
        "generator.numpy": torch.from_numpy(np.asarray(numbers, np.int64)),
    }
    facts = {
        "rows": trainer.rows,
        "best_epoch": trainer.best_epoch,
        "best_fitness": float(trainer.best_fitness),
        "averaged": trainer.ema.updates,
        "random": random.getstate(),
        "numpy": [kind, position, has_gauss, gauss],
    }
    return Checkpoint(tensors, facts)


def restore_trainer(trainer: Any, found: Checkpoint) -> None:
    """Put the state from a checkpoint into a trainer that has just been set up."""
    tensors, facts = found.tensors, found.facts
    trainer.start_epoch = len(facts["rows"])
    trainer.best_fitness = facts["best_fitness"]
    trainer.ema.ema.load_state_dict(select_prefix("average", tensors))
    trainer.ema.updates = facts["averaged"]
    model = trainer.model
    model.criterion = model.init_criterion()
    for _ in range(trainer.start_epoch if hasattr(model.criterion, "update") else 0):
        model.criterion.update()
    _skip_epochs(trainer, trainer.start_epoch)
    restore(tensors, model, trainer.optimizer)
    version, numbers, gauss = facts["random"]
    random.setstate((version, tuple(numbers), gauss))
    kind, position, has_gauss, cached = facts["numpy"]
    state = tensors["generator.numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, state, position, has_gauss, cached))


def _skip_epochs(trainer: Any, epochs: int) -> None:
    """Draw the order of the images of past epochs, without reading the images.

    `close_mosaic` epochs before the end the trainer resets its loader, which starts a new order.
    """
    loader = trainer.train_loader
    renewed = max(0, trainer.epochs - trainer.args.close_mosaic)
    if renewed:
        _draw_orders(loader, min(epochs, renewed))
    if epochs > renewed:
        trainer._close_dataloader_mosaic()
        loader.reset()
        _draw_orders(loader, epochs - renewed)
        trainer.args.close_mosaic = 0  # it has been done


def _draw_orders(loader: Any, epochs: int) -> None:
    loader.iterator = loader._get_iterator()
    for _ in range(epochs * len(loader)):
        next(loader.iterator._sampler_iter)
