"""Training: one loop for every model of the book, and the device it runs on."""

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
