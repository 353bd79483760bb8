import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18 as torchvision_resnet18

from hw3lib import data
from hw3lib.data import to_pixels
from hw3lib.experiments.part2 import zoo
from hw3lib.experiments.part2.resnet_training import pretraining
from hw3lib.experiments.part2.zoo import resnet18
from hw3lib.robust.attacks import FGSM, PGD
from hw3lib.robust.evaluate import correct, withstood
from hw3lib.robust.resnet import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    Approximation,
    EightBit,
    Normalize,
    ResNet,
)


def course_network():
    """The course's network as everybody builds it: torchvision's with another stem."""
    torch.manual_seed(0)
    network = torchvision_resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    return network


def test_a_state_dict_of_the_course_loads_strictly_and_computes_the_same():
    theirs = course_network().eval()
    ours = ResNet().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(4, 3, 32, 32)
    mean, std = torch.tensor(CIFAR10_MEAN), torch.tensor(CIFAR10_STD)
    normalized = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(normalized), atol=1e-5)


def test_our_state_dict_has_the_names_and_shapes_of_the_course():
    ours, theirs = ResNet().state_dict(), course_network().state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items()
    }


def test_normalize_gives_zero_mean_and_unit_deviation():
    x = torch.tensor(CIFAR10_MEAN).view(1, 3, 1, 1) + torch.tensor(CIFAR10_STD).view(
        3, 1, 1
    ) * torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
    out = Normalize()(x)
    assert out.flatten(2).mean(2) == pytest.approx(torch.zeros(1, 3), abs=1e-6)
    assert out.abs() == pytest.approx(torch.ones_like(out), abs=1e-5)


@pytest.mark.parametrize(
    "make", [list, tuple, torch.tensor, lambda values: np.array(values, dtype=np.float64)]
)
def test_normalisation_takes_numbers_of_any_kind_and_shows_them(make):
    normalize = Normalize(make([0.5, 0.25]), make([0.25, 0.5]))
    assert repr(normalize) == "Normalize(mean=[0.5, 0.25], std=[0.25, 0.5])"
    assert normalize(torch.ones(1, 2, 3, 3)).dtype == torch.float32


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0.3, 0.4, "mean=0.3: need a number for each channel"),
        ([0.3], 0.4, "std=0.4: need a number for each channel"),
        ([0.3, 0.3], [0.4], r"std=\[0.4\]: need a number for each channel"),
        ([0.3], [0.0], r"std=\[0.0\]: .*, and not 0"),
        ([0.3], [float("nan")], r"std=\[nan\]"),
        ([76.0], [76.0], r"mean=\[76.0\]: .* of pixels in \[0, 1\]"),
    ],
)
def test_normalisation_by_what_no_pixels_have_is_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalize(mean, std)


def test_grey_images_are_not_spread_over_three_channels():
    with pytest.raises(ValueError, match="have 1 channels; this network normalises 3"):
        ResNet(width=4, blocks=1)(torch.rand(2, 1, 32, 32))


def test_normalisation_follows_the_model_and_survives_deepcopy_and_half_precision():
    import copy

    model = copy.deepcopy(ResNet(width=4, blocks=1)).double()
    assert model.normalize.mean.dtype == torch.float64
    assert model(torch.rand(2, 3, 32, 32, dtype=torch.float64)).shape == (2, 10)


def test_saving_as_a_picture_moves_pixels_to_levels_and_lets_gradients_pass():
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    saved = EightBit()(x)
    torch.testing.assert_close(saved, to_pixels((saved * 255).round().to(torch.uint8)))
    assert (saved - x).abs().max() <= 0.5 / 255 + 1e-6
    (gradient,) = torch.autograd.grad((saved * x.detach()).sum(), x)
    assert torch.equal(gradient, x.detach())


@pytest.mark.parametrize(("levels", "survives"), [(0.4, False), (1, True), (8, True)])
def test_an_attack_survives_saving_if_it_moves_pixels_by_whole_levels(levels, survives):
    generator = torch.Generator().manual_seed(1)
    levels_of_x = torch.randint(20, 230, (64, 3, 4, 4), generator=generator, dtype=torch.uint8)
    x = to_pixels(levels_of_x)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    nn.init.normal_(model[1].weight, generator=generator)
    nn.init.zeros_(model[1].bias)
    y, attack = model(x).argmax(1), FGSM(levels / 255)
    plain, saved = (
        withstood(one, attack, x, y) for one in (model, nn.Sequential(EightBit(), model))
    )
    assert not plain.all()
    assert torch.equal(saved, plain if survives else torch.ones_like(plain))


@pytest.mark.parametrize("argument", ["num_classes", "width", "blocks"])
def test_sizes_below_one_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument}=0"):
        ResNet(**{argument: 0})


def test_small_networks_halve_the_image_four_times():
    sizes = []
    model = ResNet(width=4, blocks=1)
    for stage in (model.maxpool, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    model(torch.rand(1, 3, 32, 32))
    assert sizes == [16, 8, 4, 2]


def test_torchvision_is_imported_only_when_a_network_is_built():
    code = (
        "import sys\nimport hw3lib.experiments.catalog\nassert 'torchvision' not in sys.modules\n"
        "from hw3lib.robust.resnet import ResNet\nResNet(width=2, blocks=1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_untrained_network_is_ready_to_be_evaluated_and_trained():
    model = resnet18()
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_pretrained_network_is_the_stored_run_in_full_precision(monkeypatch):
    untrained = pretraining().build(torch.device("cpu")).state_dict()
    halved = {n: v.half() if v.is_floating_point() else v for n, v in untrained.items()}
    weights = {name: value.numpy() for name, value in halved.items()}

    def stored(settings, **options):
        assert settings == pretraining()
        assert options["weights"]
        return SimpleNamespace(weights=weights)

    monkeypatch.setattr("hw3lib.experiments.part2.resnet_training.get_run", stored)
    model = resnet18(pretrained=True)
    assert not model.training
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.requires_grad
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, untrained[name], rtol=1e-3, atol=1e-6)


@pytest.mark.real_data("cifar10")
@pytest.mark.parametrize("images", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_the_published_weights_are_right_on_93_of_100_test_images(images):
    model, dataset = resnet18(pretrained=True), data.load("cifar10")
    assert not model.training
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    right = correct(model, data.to_pixels(dataset.x_test[:images]), dataset.y_test[:images])
    assert len(right) == images
    assert right.double().mean() >= 0.93


@pytest.mark.real_data("cifar10")
@pytest.mark.parametrize("images", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_fifty_steps_at_8_255_leave_one_image_in_a_thousand_of_the_undefended_network(images):
    dataset = data.load("cifar10")
    x, y = data.to_pixels(dataset.x_test[:images]), dataset.y_test[:images]
    left = withstood(resnet18(pretrained=True), PGD(8 / 255, steps=50, keep="best"), x, y)
    assert left.sum() <= 1


def test_published_weights_can_be_trained_on():
    model = resnet18(pretrained=True)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert resnet18().state_dict().keys() == model.state_dict().keys()


def test_the_model_card_says_what_was_measured():
    assert zoo.CARD_PATH.read_text(encoding="utf-8") == zoo.model_card()


def busy_network(**options):
    """Untrained, but with statistics and scales as after training."""
    torch.manual_seed(0)
    model = ResNet(**options)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.normal_(part.bias, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize("num", [3, 40])
def test_the_approximation_computes_the_same_but_for_rounding(num):
    x = torch.rand(num, 3, 32, 32, dtype=torch.float64)
    model = busy_network(width=8).double()
    with torch.no_grad():
        rough = Approximation(model)(x)
        torch.testing.assert_close(rough, model.eval()(x), rtol=0, atol=1e-10)


def test_in_single_precision_it_computes_the_same_too(monkeypatch):
    monkeypatch.setenv("HW3_PRECISION", "float32")
    x, model = torch.rand(8, 3, 32, 32), busy_network(blocks=1).eval()
    with torch.no_grad():
        torch.testing.assert_close(Approximation(model)(x), model(x), rtol=1e-3, atol=1e-3)


def test_in_bfloat16_the_ends_stay_in_single_precision(monkeypatch):
    monkeypatch.setenv("HW3_PRECISION", "bfloat16")
    x, model = torch.rand(3, 3, 32, 32), busy_network(width=8, blocks=1).eval()
    rough = Approximation(model)
    kinds = {name.split(".")[0]: value.dtype for name, value in rough.named_parameters()}
    assert kinds == {"conv1": torch.float32, "stages": torch.bfloat16, "fc": torch.float32}
    with torch.no_grad():
        logits = rough(x)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, model(x), rtol=0, atol=0.05 * float(logits.abs().max()))


def test_the_approximation_leaves_the_network_as_it_was():
    model = busy_network(width=4, blocks=1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Approximation(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Sharper(ResNet):
    """Computes something else than what it inherits."""

    def forward(self, x):
        return 2 * super().forward(x)


def hooked(where, register):
    model = busy_network(width=4, blocks=1)
    getattr(model.get_submodule(where), register)(lambda *_arguments: None)
    return model


def with_part(name, part):
    model = busy_network(width=4, blocks=1)
    setattr(model, name, part)
    return model


def with_own_forward():
    model = busy_network(width=4, blocks=1)
    model.forward = lambda x: ResNet.forward(model, x).square()
    return model


REFUSED = {
    "a subclass": (lambda: Sharper(width=4, blocks=1), "it is a Sharper"),
    "a function": (lambda: lambda x: x, "it is a function"),
    "torchvision's": (course_network, "it is a ResNet"),
    "a pre-hook": (lambda: hooked("", "register_forward_pre_hook"), "it has a hook"),
    "a hook on a part": (
        lambda: hooked("layer3.0", "register_forward_hook"), "its part layer3.0 has a hook",
    ),
    "group norm": (lambda: with_part("bn1", nn.GroupNorm(2, 4)), "its part bn1 is a GroupNorm"),
    "a sequence in front": (
        lambda: with_part("relu", nn.Sequential(nn.ReLU(), nn.Dropout())), "is a Dropout",
    ),
    "no statistics": (
        lambda: with_part("bn1", nn.BatchNorm2d(4, track_running_stats=False)), "no running stat",
    ),
    "its own forward": (with_own_forward, "a forward of its own"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_resnet_has_no_approximation(kind):
    """It would be another network's, and an attack would follow the wrong gradient."""
    make, why = REFUSED[kind]
    with pytest.raises(TypeError, match=f"{why}.*look=.exact"):
        Approximation(make())
