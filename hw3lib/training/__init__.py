"""Training: one loop for every model of the book, and the device it runs on."""

from hw3lib.training.devices import device_name, has_bfloat16, pick_device
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

__all__ = [
    "Objective",
    "Parts",
    "Progress",
    "cpu_state",
    "device_name",
    "first_losses",
    "fit",
    "has_bfloat16",
    "pick_device",
    "save",
    "seeded",
]
