"""A stored run of `PicturesByRadius` as an explorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from IPython.display import HTML

from hw3lib.book.explorers.controls import Choice, Control, Slider
from hw3lib.book.explorers.element import explorer
from hw3lib.book.explorers.panels import Attacked, Bars
from hw3lib.experiments.part2.base import AnyAttack
from hw3lib.experiments.part2.pictures_by_radius import PicturesByRadius
from hw3lib.robust.attacks import FGSM, SignNoise
from hw3lib.runs import Run


def attack_explorer(name: str, run: Run, networks: Sequence[str]) -> HTML:
    """Radius, attack, picture and, if there are several, network, and what comes of them.

    Args:
        name: of the element, unique on the page.
        run: of `PicturesByRadius`.
        networks: what to call its networks, in its order.

    Raises:
        ValueError: there are more networks, or fewer, than names.
    """
    settings, arrays = cast(PicturesByRadius, run.settings), run.arrays
    if len(networks) != len(settings.models):
        raise ValueError(f"{len(networks)} names for {len(settings.models)} networks")
    radii = ["0", *(f"{255 * eps:g}/255" for eps in settings.eps_values)]
    original = arrays["original"].transpose(0, 2, 3, 1)
    names = [run.results["classes"][label] for label in arrays["label"]]
    controls: list[Control] = [
        Choice("Network", networks),
        Choice("Attack", [_called(attack) for attack in settings.attacks]),
        Slider("Radius ε", radii, start=len(radii) // 2),
        Choice("Picture", names, icons=original),
    ]
    change = np.moveaxis(arrays["change"], -3, -1)
    none = np.zeros_like(change[:, :, :1])
    clean = np.broadcast_to(
        arrays["clean"][:, None, None], (*change.shape[:2], 1, *arrays["clean"].shape[1:])
    )
    change = np.concatenate([none, change], axis=2)
    shares = np.concatenate([clean, arrays["probabilities"]], axis=2)
    one = len(networks) == 1  # then there is nothing to choose
    first = (slice(None), 0)[one]
    panels = (
        Attacked(original[(None,) * (3 - one)], change[first]),
        Bars(run.results["classes"], shares[first], arrays["label"][(None,) * (3 - one)]),
    )
    return explorer(name, controls[one:], panels)


def _called(attack: AnyAttack) -> str:
    if isinstance(attack, SignNoise):
        return "random signs"
    return "FGSM" if isinstance(attack, FGSM) else f"PGD, {attack.steps} steps"
