"""The network that comes with the package, and its model card, written from the runs it describes.

`python -m hw3lib.experiments.part2.zoo` writes the card anew.
"""

from __future__ import annotations

from pathlib import Path

from hw3lib import runs
from hw3lib.experiments.part2.attacked import UnderAttack, intervals
from hw3lib.experiments.part2.resnet_training import load_resnet, pretraining
from hw3lib.robust.resnet import ResNet


def resnet18(*, pretrained: bool = False) -> ResNet:
    """ResNet-18 for CIFAR-10 in evaluation mode, on the CPU.

    Args:
        pretrained: with the weights that ship with the package, the run `pretraining()` of
            `hw3lib.experiments.part2.resnet_training`; else untrained.

    Example:
        >>> import torch
        >>> network = resnet18()  # pretrained=True takes the weights that ship
        >>> network(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    if not pretrained:
        return ResNet().eval()
    return load_resnet(pretraining()).requires_grad_(True)


CARD_PATH = runs.PUBLISHED / "resnet18.md"
"""Where the card ships, beside the runs."""

TEMPLATE = Path(__file__).with_name("model_card.md")
"""The card without its numbers, for `str.format`."""


def model_card() -> str:
    """The card as Markdown.

    Raises:
        RunError: the published run is damaged.
    """
    settings = pretraining()
    second = settings.start
    assert second, "the recipe has three stages"
    stages = [runs.run(stage) for stage in (settings.first, second, settings)]
    measured = intervals(runs.run(UnderAttack(model=settings)))
    return TEMPLATE.read_text(encoding="utf-8").format(
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
        file="/".join(stages[-1].path.with_suffix(".safetensors").parts[-2:]),
        digest=stages[-1].files["safetensors"],
        **stages[-1].provenance,
    )


if __name__ == "__main__":
    CARD_PATH.write_text(model_card(), encoding="utf-8")
