"""Training: one loop for every model of the book, and the device it runs on.

Example:
    An objective either has all data on the device or yields each `Batch`, such as a loader does.

    >>> import torch
    >>> from hw3lib import robust, training
    >>> images, labels = torch.rand(6, 3, 4, 4), torch.zeros(6, dtype=torch.long)
    >>> objective = robust.Classification((images, labels), (images, labels))
    >>> batch: training.Batch = next(iter(objective.batches(2, torch.Generator())))
    >>> [tuple(part.shape) for part in batch]
    [(2, 3, 4, 4), (2,), (1,)]
"""

from hw3lib.training.checkpoint import load, save
from hw3lib.training.devices import device_name, pick_device
from hw3lib.training.loop import first_losses, fit, seeded
from hw3lib.training.objective import Batch, Objective, Streamed
from hw3lib.training.precision import bfloat16_pays
from hw3lib.training.progress import Parts, Progress, cpu_state

__all__ = [
    "Batch",
    "Objective",
    "Parts",
    "Progress",
    "Streamed",
    "bfloat16_pays",
    "cpu_state",
    "device_name",
    "first_losses",
    "fit",
    "load",
    "pick_device",
    "save",
    "seeded",
]
