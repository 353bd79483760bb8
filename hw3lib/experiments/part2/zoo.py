"""Networks that come with the package, ready to use, and their model card."""

from __future__ import annotations

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
