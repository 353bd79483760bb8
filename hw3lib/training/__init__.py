"""Training: one loop for every model of the book, and the device it runs on."""

from hw3lib.training.devices import device_name, pick_device
from hw3lib.training.loop import (
    Objective,
    Parts,
    Progress,
    cpu_state,
    first_losses,
    fit,
    save,
    seeded,
)
from hw3lib.training.precision import bfloat16_pays

__all__ = [
    "Objective",
    "Parts",
    "Progress",
    "bfloat16_pays",
    "cpu_state",
    "device_name",
    "first_losses",
    "fit",
    "pick_device",
    "save",
    "seeded",
]
