"""ResNet-18 for 32 x 32 images, with normalisation as its first layer.

Pixels in [0, 1] go in and logits come out, so that an attack's radius is in pixels. The blocks are
torchvision's; the stem is a 3 x 3 convolution of stride 1, and the max-pool is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from hw3lib.convolution import Conv3x3, has_bfloat16

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.247, 0.243, 0.261)


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float] = CIFAR10_MEAN, std: Sequence[float] = CIFAR10_STD
    ) -> None:
        super().__init__()
        # Not in the state dict, so that networks which are normalised outside load unchanged.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ResNet(nn.Module):
    """Four stages of residual blocks (He et al. 2016), ResNet-18 by default.

    The parameters have torchvision's names; a state dict of the course's pretrained network loads
    strictly.

    Args:
        num_classes: length of the logits.
        width: channels of the first stage; each later stage doubles them.
        blocks: residual blocks in each stage.

    Raises:
        ValueError: an argument is below 1.
    """

    def __init__(self, num_classes: int = 10, *, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        if min(num_classes, width, blocks) < 1:
            raise ValueError(
                f"num_classes={num_classes}, width={width}, blocks={blocks}: all must be at least 1"
            )
        self.normalize = Normalize()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)  # 32 -> 16
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)  # 16 -> 8
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)  # 8 -> 4
        self.layer4 = _stage(4 * width, 8 * width, blocks, stride=2)  # 4 -> 2
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of pixels x (N, 3, H, W) in [0, 1]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits

    def approximation(self) -> Approximation:
        """A faster network that computes nearly the same in evaluation mode."""
        return Approximation(self)


class Approximation(nn.Module):
    """A `ResNet` in evaluation mode with fewer and shorter numbers, for attacks to look at.

    Batch norm is folded into the convolutions. Where the processor multiplies bfloat16, all but the
    first convolution and the last layer are in it: there, small changes of pixels would be lost.

    Args:
        network: is copied; nothing is learnt here.
    """

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval().requires_grad_(False)
        self.normalize, self.relu, self.maxpool = network.normalize, network.relu, network.maxpool
        self.conv1 = fuse_conv_bn_eval(network.conv1, network.bn1)
        self.stages = nn.Sequential(
            network.layer1, network.layer2, network.layer3, network.layer4, network.avgpool
        )
        self.fc = network.fc
        for block in self.stages.modules():
            _fold(block)
        weight = self.fc.weight
        self.dtype = weight.dtype
        if weight.dtype == torch.float32 and has_bfloat16(weight.device):
            self.dtype = torch.bfloat16
        self.stages.to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of pixels x (N, 3, H, W) in [0, 1]."""
        x = self.conv1(self.normalize(x)).to(self.dtype)
        x = self.stages(self.maxpool(self.relu(x))).flatten(1)
        logits: Tensor = self.fc(x.to(self.fc.weight.dtype))
        return logits


def _fold(block: nn.Module) -> None:
    """Fold the batch norms of a residual block, or of a shortcut, into its convolutions."""
    from torchvision.models.resnet import BasicBlock

    if isinstance(block, BasicBlock):
        block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
        block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
        if block.downsample is not None:
            block.downsample = fuse_conv_bn_eval(*block.downsample)


def resnet18(*, pretrained: bool = False) -> ResNet:
    """ResNet-18 for CIFAR-10 in evaluation mode, on the CPU.

    Args:
        pretrained: with the weights that ship with the package, the run `pretraining()` of
            `hw3lib.experiments.resnet_training`; else untrained.
    """
    if not pretrained:
        return ResNet().eval()
    # The one look back from a model to what trained it: its weights are a stored run.
    from hw3lib.experiments.resnet_training import load_resnet, pretraining

    return load_resnet(pretraining()).requires_grad_(True)


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Residual blocks of one size; the first changes resolution and number of channels."""
    # Imported here: it takes as long as torch itself, and most of the library builds no network.
    from torchvision.models.resnet import BasicBlock

    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False),
            nn.BatchNorm2d(channels),
        )
    first = BasicBlock(channels_in, channels, stride, shortcut)
    stage = nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))
    for block in stage:
        assert isinstance(block, BasicBlock)
        if block.stride == 1:
            block.conv1 = Conv3x3.like(block.conv1)
        block.conv2 = Conv3x3.like(block.conv2)
    return stage
