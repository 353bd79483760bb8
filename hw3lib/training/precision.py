"""Whether bfloat16 makes a step faster: measured, not assumed from what a processor can do.

Processors exist whose bfloat16 convolutions are several times slower backwards than those in
float32, although they have instructions for them.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import timeit
from functools import cache, partial
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


@cache
def _remembered(weights: bool) -> str:
    """The precision in which a step is faster: the least time of three counts."""
    path = cache_dir() / "precision.json"
    try:
        known = dict(json.loads(path.read_text()))
    except (OSError, TypeError, ValueError):
        known = {}
    name = f"{processor()}, torch {torch.__version__}, {'training' if weights else 'attack'}"
    if known.get(name) not in PRECISIONS:
        rounds = [  # in turn, since a machine may slow down in between
            {kind: timeit.timeit(partial(_step, kind, weights), number=1) for kind in PRECISIONS}
            for _ in range(3)
        ]
        seconds = {kind: min(one[kind] for one in rounds) for kind in PRECISIONS}
        logger.info("a step takes %s", ", ".join(f"{s:.3f} s in {n}" for n, s in seconds.items()))
        known[name] = min(seconds, key=seconds.__getitem__)
        text = json.dumps(known, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: part.write_text(text))
    return str(known[name])


def _step(precision: str, weights: bool) -> None:
    """Forward and backward through convolutions as in the middle of a ResNet-18."""
    x = torch.ones(64, 64, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    taps = [torch.full((64, 64, 3, 3), 1e-3, requires_grad=weights) for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
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
