"""Whether bfloat16 makes a step faster: measured, not assumed from what a processor can do.

Processors exist whose bfloat16 convolutions are several times slower backwards than those in
float32, although they have instructions for them.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from hw3lib.files import write_whole
from hw3lib.runs import cache_dir

logger = logging.getLogger("hw3lib")

PRECISIONS = ("float32", "bfloat16")


def bfloat16_pays(device: torch.device, *, weights: bool = True) -> bool:
    """Whether a step is faster in bfloat16 than in float32 on this device.

    `HW3_PRECISION` in the environment ("float32" or "bfloat16") overrides. On a CPU that multiplies
    bfloat16 both are timed once, and the answer is kept in the user's cache under the processor's
    name, so that a resumed training goes on as it began.

    Args:
        device: of the step.
        weights: the step trains; without, it attacks: only the input's gradient is computed.

    Raises:
        ValueError: `HW3_PRECISION` is something else.

    Example:
        >>> os.environ["HW3_PRECISION"] = "float32"  # otherwise it is timed, once
        >>> bfloat16_pays(torch.device("cpu"))
        False
    """
    if asked := os.environ.get("HW3_PRECISION"):
        if asked not in PRECISIONS:
            raise ValueError(f"HW3_PRECISION={asked!r}: choose one of {', '.join(PRECISIONS)}")
        return asked == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(native()) and _remembered(weights) == "bfloat16"


def faster(step: Callable[[torch.dtype], None], *, repeats: int = 3) -> str:
    """The precision in which a step is faster: the least time of some repeats counts."""
    seconds = dict.fromkeys(PRECISIONS, float("inf"))
    for _ in range(repeats):
        for name in PRECISIONS:
            started = time.perf_counter()
            step(getattr(torch, name))
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    logger.info("a step takes %s", ", ".join(f"{s:.3f} s in {n}" for n, s in seconds.items()))
    return min(seconds, key=lambda name: seconds[name])


@cache
def _remembered(weights: bool) -> str:
    path = cache_dir() / "precision.json"
    known = _read(path)
    name = f"{processor()}, torch {torch.__version__}, {'training' if weights else 'attack'}"
    if known.get(name) not in PRECISIONS:
        known[name] = faster(lambda dtype: _step(dtype, weights))
        text = json.dumps(known, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: part.write_text(text))
    return str(known[name])


def _read(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _step(dtype: torch.dtype, weights: bool) -> None:
    """Forward and backward through convolutions as in the middle of a ResNet-18."""
    x = torch.ones(64, 64, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    taps = [torch.full((64, 64, 3, 3), 1e-3, requires_grad=weights) for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = x
        for tap in taps:
            out = F.conv2d(out, tap, padding=1).relu()
    torch.autograd.grad(out.float().sum(), [x, *taps] if weights else [x])


def processor() -> str:
    """The processor's name as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told = dict(line.replace("\t", "").split(": ", 1) for line in lines[:8] if ": " in line)
        return f"{told['model name']}, family {told['cpu family']}, model {told['model']}"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()
