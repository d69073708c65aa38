"""The state of a detector's training after an epoch, and putting it back: see `checkpoint`.

ultralytics has a way of its own to resume, which loses the random generators, the order of the
images and the bits that half precision leaves out.
"""

import random
from typing import Any

import numpy as np
import torch

from mammo.learning.checkpoint import Checkpoint, prefixed, restore, state_of, unprefixed


def state_of_trainer(trainer: Any) -> Checkpoint:
    """What ultralytics' trainer, and ours on top of it, changes from epoch to epoch."""
    kind, numbers, place, has_gauss, gauss = np.random.get_state()
    tensors = {
        **state_of(trainer.model, trainer.optimizer),
        **prefixed("average", trainer.ema.ema.state_dict()),
        **prefixed("best", trainer.best_weights),
        "generator.numpy": torch.from_numpy(np.asarray(numbers, np.int64)),
    }
    facts = {
        "rows": trainer.rows,
        "best_epoch": trainer.best_epoch,
        "best_fitness": float(trainer.best_fitness),
        "averaged": trainer.ema.updates,
        "random": random.getstate(),
        "numpy": [kind, place, has_gauss, gauss],
    }
    return Checkpoint(tensors, facts)


def put_back(trainer: Any, found: Checkpoint) -> None:
    """Make a trainer that has just been set up go on where another one was."""
    tensors, facts = found.tensors, found.facts
    trainer.start_epoch = len(facts["rows"])
    trainer.best_fitness = facts["best_fitness"]
    trainer.ema.ema.load_state_dict(unprefixed("average", tensors))
    trainer.ema.updates = facts["averaged"]
    model = trainer.model
    model.criterion = model.init_criterion()
    for _ in range(trainer.start_epoch if hasattr(model.criterion, "update") else 0):
        model.criterion.update()
    _skip(trainer, trainer.start_epoch)
    restore(tensors, model, trainer.optimizer)
    version, numbers, gauss = facts["random"]
    random.setstate((version, tuple(numbers), gauss))
    kind, place, has_gauss, cached = facts["numpy"]
    state = tensors["generator.numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, state, place, has_gauss, cached))


def _skip(trainer: Any, epochs: int) -> None:
    """Draw the order of the images as often as it has been, without reading them.

    Some epochs before the end the trainer makes its loader anew, which begins another order.
    """
    loader = trainer.train_loader
    renewed = max(0, trainer.epochs - trainer.args.close_mosaic)
    if renewed:
        _draw(loader, min(epochs, renewed))
    if epochs > renewed:
        trainer._close_dataloader_mosaic()
        loader.reset()
        _draw(loader, epochs - renewed)
        trainer.args.close_mosaic = 0  # it has been done


def _draw(loader: Any, epochs: int) -> None:
    loader.iterator = loader._get_iterator()
    for _ in range(epochs * len(loader)):
        next(loader.iterator._sampler_iter)
