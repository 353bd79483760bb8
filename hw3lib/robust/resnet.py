"""ResNet-18 for 32 x 32 images, with normalisation as its first layer.

Pixels in [0, 1] go in and logits come out, so that an attack's radius is in pixels. The blocks are
torchvision's; the stem is a 3 x 3 convolution of stride 1, and the max-pool is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from hw3lib.robust.balls import CIFAR10_MEAN, CIFAR10_STD
from hw3lib.training.precision import bfloat16_pays


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
        mean, std: of pixels in [0, 1], a number for each channel.

    Raises:
        ValueError: these are no such numbers, or images have other channels.

    Example:
        >>> Normalize(mean=[0.5], std=[0.25])(torch.ones(1, 1, 2, 2)).unique()
        tensor([2.])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float] = CIFAR10_MEAN, std: Sequence[float] = CIFAR10_STD
    ) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            numbers = torch.as_tensor(values, dtype=torch.get_default_dtype()).detach().clone()
            fits = numbers.ndim == 1 and len(numbers) == len(mean)
            inside = bool(((numbers >= 0) & (numbers <= 1)).all())
            if not (fits and inside and (name == "mean" or numbers.all())):
                what = f"of pixels in [0, 1]{', and not 0' if name == 'std' else ''}"
                raise ValueError(f"{name}={values!r}: need a number for each channel, {what}")
            # Not in the state dict, so that networks which are normalised outside load unchanged.
            self.register_buffer(name, numbers.view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-3] != len(self.mean):
            raise ValueError(
                f"images of shape {tuple(x.shape)} have {x.shape[-3]} channels; this network "
                f"normalises {len(self.mean)}"
            )
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        numbers = ([f"{n:.4g}" for n in part.flatten().tolist()] for part in (self.mean, self.std))
        return "mean=[{}], std=[{}]".format(*map(", ".join, numbers))


class StraightThrough(nn.Module):
    """What a function makes of pixels, with the gradient of one that does nothing.

    For what cuts or hides the gradient, such as a threshold (BPDA, Athalye et al. 2018; Bengio et
    al. 2013): `nn.Sequential(StraightThrough(threshold), model)` answers as before, and attacks can
    follow it. The function keeps the shape of its images.

    Example:
        >>> x = torch.tensor([0.2, 0.7], requires_grad=True)
        >>> steps = StraightThrough(lambda x: (x > 0.5).float())(x)
        >>> steps.sum().backward()
        >>> steps.tolist(), x.grad.tolist()
        ([0.0, 1.0], [1.0, 1.0])
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function's value; its gradient is that of x."""
        return self.function(x.detach()).detach() + (x - x.detach())


class EightBit(StraightThrough):
    """Round pixels to the 256 levels of a saved picture; gradients pass as if it did nothing.

    `nn.Sequential(EightBit(), model)` is what a model makes of pictures that were saved as files:
    an attack withstood by it, but not by the model, does not survive saving. The gradient of
    `StraightThrough` keeps the rounding from hiding the model from the attack.

    Example:
        >>> float(255 * EightBit()(torch.tensor(100.4 / 255)))
        100.0
    """

    def __init__(self) -> None:
        super().__init__(_as_saved)


def _as_saved(x: Tensor) -> Tensor:
    return (x * 255).round() / 255


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

    Example:
        >>> model = ResNet(num_classes=10, width=4).eval()
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
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


class Approximation(nn.Module):
    """A `ResNet` in evaluation mode with fewer and shorter numbers: the fast look of an attack.

    Batch norm is folded into the convolutions. Where bfloat16 pays on the processor, all but the
    first convolution and the last layer are in it: there, small changes of pixels would be lost.

    Args:
        network: is copied; nothing is learnt here.

    Raises:
        TypeError: the network is not a plain `ResNet`, so that this might compute something else.
    """

    def __init__(self, network: object) -> None:
        super().__init__()
        _check_plain(network)
        assert isinstance(network, ResNet)
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
        if weight.dtype == torch.float32 and bfloat16_pays(weight.device, weights=False):
            self.dtype = torch.bfloat16
        self.stages.to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of pixels x (N, 3, H, W) in [0, 1]."""
        x = self.conv1(self.normalize(x)).to(self.dtype)
        x = self.stages(self.maxpool(self.relu(x))).flatten(1)
        logits: Tensor = self.fc(x.to(self.fc.weight.dtype))
        return logits


def _check_plain(network: object) -> None:
    """Refuse what has other parts, or runs other code, than what `ResNet` is built of."""
    from torchvision.models.resnet import BasicBlock

    known = {
        ResNet, Normalize, BasicBlock, nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU,
        nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Linear,
    }  # fmt: skip
    why = "" if isinstance(network, ResNet) else f"it is a {type(network).__name__}"
    for name, part in network.named_modules() if isinstance(network, ResNet) else ():
        where = f"its part {name}" if name else "it"
        if type(part) not in known:
            why = f"{where} is a {type(part).__name__}"
        elif part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
            why = f"{where} has a hook or a forward of its own"
        elif isinstance(part, nn.BatchNorm2d) and part.running_mean is None:
            why = f"{where} keeps no running statistics"
    if why:
        raise TypeError(
            f'look="fast" is for an unchanged hw3lib ResNet, but {why}; an attack on it has to '
            'look at the network itself: leave look="exact"'
        )


def _fold(block: nn.Module) -> None:
    """Fold the batch norms of a residual block, or of a shortcut, into its convolutions."""
    from torchvision.models.resnet import BasicBlock

    if isinstance(block, BasicBlock):
        block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
        block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
        if block.downsample is not None:
            block.downsample = fuse_conv_bn_eval(*block.downsample)


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
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))
