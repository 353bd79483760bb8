"""How cost grows: seconds by epochs, images, steps and batch size; passes; peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.rows import EIGHT, RADII, STEPS, Bench, train
from benchmarks.timing import seconds
from hw3lib import data
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.robust.attacks import PGD
from hw3lib.robust.evaluate import eps_curve, withstood

# An attack that visits every image at every step, so that the amount of work is known.
FULL = PGD(EIGHT, steps=4, keep="last")

PEAK = """
import json, pathlib, re, sys
import torch
from hw3lib import data
from hw3lib.robust.attacks import PGD
from hw3lib.robust.resnet import ResNet
from hw3lib.robust.evaluate import withstood

def peak():
    # Not getrusage: a child inherits its parent's peak.
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

num = int(sys.argv[1])
x, y = torch.rand(num, 3, 32, 32), torch.zeros(num, dtype=torch.int64)
model = ResNet(width=16, blocks=1).eval()
before = peak()
withstood(model, PGD(8 / 255, steps=2), x, y, batch_size=100)
print(json.dumps([before, peak()]))
"""


def attack_growth(bench: Bench) -> dict[str, dict[str, float]]:
    """Seconds of an attack against images, steps and batch size."""
    half = 16 if bench.quick else 125
    model, (x, y) = bench.undefended, bench.images(2 * half)

    def images(num: int) -> float:
        return seconds(lambda: withstood(model, FULL, x[:num], y[:num]))

    def steps(num: int) -> float:
        return seconds(lambda: withstood(model, PGD(EIGHT, steps=num), x[:half], y[:half]))

    def batch(size: int) -> float:
        return seconds(lambda: withstood(model, FULL, x[:half], y[:half], batch_size=size))

    return {
        "images": {str(num): images(num) for num in (half // 2, half, 2 * half)},
        "steps": {str(num): steps(num) for num in (2, 4, 8)},
        "batch size": {str(size): batch(size) for size in (10, 50, 100)},
    }


class Counted(nn.Module):
    """A model that counts the images that it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        logits: Tensor = self.model(x)
        return logits


def passes(bench: Bench) -> dict[str, int]:
    """Images that go through the network for a curve over eight radii, and for eight runs.

    Their ratio is about what the curve can win: both spend nearly all their time on these passes.
    """
    x, y = bench.images(24 if bench.quick else 100)
    attack = PGD(EIGHT, steps=STEPS, keep="best")
    curve, runs = Counted(bench.undefended).eval(), Counted(bench.undefended).eval()
    eps_curve(curve, attack, x, y, RADII)
    for eps in RADII:
        withstood(runs, replace(attack, eps=eps), x, y)
    return {"one curve": curve.images, "eight runs": runs.images}


def epoch_growth(bench: Bench) -> dict[str, float]:
    """Seconds of training the VAE on a thousand images against epochs."""
    settings = TrainVAE()
    images = data.quantize(bench.digits[:1024])

    def work(epochs: int) -> None:
        model, optimizer = settings.build(torch.device("cpu"))
        objective = settings.objective(images, images[:8])
        train(model, objective, optimizer, select="bpd", epochs=epochs)

    return {str(epochs): seconds(partial(work, epochs)) for epochs in (1, 2, 4)}


def peak_memory(sizes: tuple[int, ...], rounds: int = 1) -> dict[str, float]:
    """MB that evaluating so many images adds to what the images themselves take.

    The least of so many rounds, since threads that happen to allocate at a time add tens of MB.
    """

    def added(num: int) -> float:
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(num)], check=True, capture_output=True, text=True
        )
        before, after = json.loads(done.stdout)
        return float(after - before) / 1024

    return {str(num): min(added(num) for _ in range(rounds)) for num in sizes}
