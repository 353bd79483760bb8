"""The network that comes with the package, and its model card, written from the runs it describes.

`python -m hw3lib.experiments.part2.zoo` writes the card anew.
"""

from __future__ import annotations

import hashlib

from hw3lib import runs
from hw3lib.experiments.part2.attacked import UnderAttack, intervals
from hw3lib.experiments.part2.resnet_training import load_resnet, pretraining
from hw3lib.robust.resnet import ResNet


def resnet18(*, pretrained: bool = False) -> ResNet:
    """ResNet-18 for CIFAR-10 in evaluation mode, on the CPU.

    Args:
        pretrained: with the weights that ship with the package, the run `pretraining()` of
            `hw3lib.experiments.part2.resnet_training`; else untrained.
    """
    if not pretrained:
        return ResNet().eval()
    return load_resnet(pretraining()).requires_grad_(True)


CARD_PATH = runs.PUBLISHED / "resnet18.md"
"""Where the card ships, beside the runs."""

CARD = """\
# ResNet-18 for CIFAR-10

    from hw3lib import resnet18

    model = resnet18(pretrained=True)    # pixels in [0, 1] go in, logits come out

**What it is.** ResNet-18 (He et al. 2016) with a 3 × 3 stem of stride 1 and the max-pool kept,
{parameters:,} parameters. It normalises by itself. It stands in for the ready-made network of a
course on adversarial robustness: it is there to be attacked and to start defences from, and is not
robust.

**Data.** The 50,000 training images of CIFAR-10, checksum `{data}`.

**Recipe.** SGD with batches of {s.batch_size}, Nesterov momentum {s.momentum:g} and weight decay
{s.weight_decay:g}; flips, crops from a border of four pixels, and a blanked square in each image.
First {first.epochs} epochs in one cycle of the learning rate up to {first.learning_rate:g}, with
squares of {first.erased} pixels and labels smoothed by {first.defense.label_smoothing:g}. Then
{second.epochs} epochs at a constant {second.learning_rate:g}, with labels as they are. Then
{s.epochs} epochs from {s.learning_rate:g} straight down to zero, with squares of {s.erased} pixels.
Seed {s.seed}.

**Measured** in float32 from the float16 weights of the file: accuracy on all test images, and on
the quarter that the course tests on, with 95 % intervals (Wilson). The other three quarters are the
course's validation images. They chose no weights here, since each
stage keeps its last.

| under | all test images | course's |
|---|---|---|
{rows}

FGSM has the course's ε = 0.1 and PGD its ε = 0.01, in units of the normalised input. Strong PGD
takes twenty steps from each of two random starts in the ball of FGSM.

**Limits.** It knows ten classes of 32 × 32 photographs and calls everything else one of them, with
confidence. Labels and pictures have the biases of CIFAR-10 (Krizhevsky 2009). It is one training:
another seed makes other errors.

**Made by** hw3lib {version}, commit {commit}, torch {torch}, {device}, in {minutes:.0f} minutes,
finished {finished:.10}. Run `{key}`.

**File.** `{file}`, float16, SHA-256
`{digest}`. Licence: MIT, as the package.
"""


def model_card() -> str:
    """The card as Markdown.

    Raises:
        RunError: the published run is damaged.
    """
    settings = pretraining()
    second = settings.start
    assert second, "the recipe has three stages"
    stages = [runs.run(stage) for stage in (settings.first, second, settings)]
    weights = stages[-1].path.with_suffix(".safetensors")
    measured = intervals(runs.run(UnderAttack(model=settings)))
    return CARD.format(
        s=settings,
        first=settings.first,
        second=second,
        key=stages[-1].key,
        parameters=stages[-1].results["num_parameters"],
        rows="\n".join(
            f"| {name} | {both['honest']:.2%} | {both['course']:.2%} |"
            for name, both in measured.items()
        ),
        minutes=sum(stage.provenance["seconds"] for stage in stages) / 60,
        file="/".join(weights.parts[-2:]),
        digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
        **stages[-1].provenance,
    )


if __name__ == "__main__":
    CARD_PATH.write_text(model_card(), encoding="utf-8")
