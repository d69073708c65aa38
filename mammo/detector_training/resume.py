"""The state of a detector's training after an epoch, and its restoration: see `checkpoint`.

ultralytics' own way to resume a training does not keep the random generators, the order of the
images, and single precision.
"""

import random
from collections.abc import Iterator
from itertools import islice
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
    """Let the loader go on with the order of the images that it would have after past epochs.

    `close_mosaic` epochs before the end the trainer resets its loader, which starts a new order.
    """
    loader = trainer.train_loader
    renewed = max(0, trainer.epochs - trainer.args.close_mosaic)
    batches = len(loader)
    if epochs < renewed:
        _skip_batches(loader, epochs * batches)
        return
    if renewed:
        # The generator of the order moves when the loader starts, too. So the loader is started,
        # and reads one batch: the last one before it is reset.
        _skip_batches(loader, renewed * batches - 1)
        next(iter(loader))
    if epochs > renewed:
        trainer._close_dataloader_mosaic()
        loader.reset()
        trainer.args.close_mosaic = 0  # it has been done
        _skip_batches(loader, (epochs - renewed) * batches)


def _skip_batches(loader: Any, count: int) -> None:
    """Let the loader, when it starts, draw the order of `count` batches without reading them."""
    endless = loader.batch_sampler  # ultralytics': it starts again what it is made of, for ever
    endless.sampler = _LaterBatches(endless.sampler, count)


class _LaterBatches:
    """The batches of a sampler, which it gives again and again; the first `skipped` are left out.

    What is left out is drawn nevertheless, so that the sampler's generator moves as it would have.
    """

    def __init__(self, batches: Any, skipped: int) -> None:
        self.batches = batches
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        skipped, self.skipped = self.skipped, 0
        while skipped >= len(self):
            skipped -= sum(1 for _ in self.batches)
        yield from islice(self.batches, skipped, None)
