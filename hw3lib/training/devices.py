"""Which device computes, and what it is called."""

from __future__ import annotations

import torch


def device_name(device: torch.device) -> str:
    """What the provenance calls a device.

    Example:
        >>> device_name(torch.device("cpu"))
        'cpu, ... threads'
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or a GPU where there is one, else the CPU.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
