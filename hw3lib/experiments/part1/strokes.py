"""Measures of pictures of digits that need no model: ink, width, slant (questions 1.9 to 1.11).

Arrays in, arrays out. Images are grey levels (N, H, W) in 0..15, integer or not; a pixel is ink at
level 8 and above, the upper half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from hw3lib.experiments.base import Floats

INK_LEVEL = 8
"""Grey level from which a pixel counts as ink."""

SMALLEST_PIECE = 5
"""Connected ink of fewer pixels is a speck, not a piece."""

_WITHIN_IMAGE = np.pad(np.ones((1, 3, 3), dtype=bool), ((1, 1), (0, 0), (0, 0)))
"""The eight neighbours of a pixel, in no other image."""


def ink(images: ArrayLike) -> Floats:
    """Share of ink pixels of each image, (N,)."""
    return _is_ink(images).mean((1, 2))


def stroke_width(images: ArrayLike) -> Floats:
    """Mean stroke width in pixels, (N,): twice the ink over the length of its outline.

    The outline is counted in pixel sides between ink and paper, so a long straight horizontal or
    vertical stroke gets its true width. An image without ink gets 0.
    """
    black = np.pad(_is_ink(images), ((0, 0), (1, 1), (1, 1)))
    outline = sum(np.diff(black, axis=axis).sum((1, 2)) for axis in (1, 2))
    return 2 * black.sum((1, 2)) / np.maximum(outline, 1)


def pieces(images: ArrayLike) -> NDArray[np.int64]:
    """Connected pieces of ink, (N,); pixels touch along a side or at a corner."""
    black = _is_ink(images)
    labels, is_piece = _pieces(black)
    numbers, first = np.unique(labels, return_index=True)  # no 0 where all is ink
    owner = first[is_piece[numbers]] // black[0].size
    return np.bincount(owner, minlength=len(black))


def background(images: ArrayLike, margin: int = 2) -> Floats:
    """Share of the background that is not blank, (N,): level 0 is blank.

    The background is all pixels farther than `margin` from every piece of ink; specks are no
    pieces, so they count as dirt. An image without background gets 0.
    """
    labels, is_piece = _pieces(_is_ink(images))
    near = scipy.ndimage.binary_dilation(is_piece[labels], _WITHIN_IMAGE, iterations=margin)
    dirty = (np.asarray(images) > 0) & ~near
    return dirty.sum((1, 2)) / np.maximum((~near).sum((1, 2)), 1)


def slant(images: ArrayLike) -> Floats:
    """How far a digit leans, (N,): pixels to the right for each pixel up.

    The shear that the second moments of the grey levels show; 0 for an image without ink.
    """
    moments = _second_moments(images)
    return moments["xy"] / np.maximum(moments["yy"], 1e-12)


def height(images: ArrayLike) -> Floats:
    """Vertical extent in pixels, (N,): the standard deviation of the rows of the ink."""
    return np.sqrt(_second_moments(images)["yy"])


def breadth(images: ArrayLike) -> Floats:
    """Horizontal extent in pixels, (N,): the spread that is left when the slant is taken out."""
    moments = _second_moments(images)
    sheared = moments["xy"] ** 2 / np.maximum(moments["yy"], 1e-12)
    return np.sqrt(np.maximum(moments["xx"] - sheared, 0))


def spatial_autocorrelation(images: ArrayLike) -> float:
    """Correlation of a pixel with its right neighbour (lag one), over all pixels of all images.

    Near 0 for pixels drawn independently of each other, near 1 for smooth pictures.
    """
    x = np.asarray(images, dtype=np.float64)
    return float(np.corrcoef(x[:, :, :-1].ravel(), x[:, :, 1:].ravel())[0, 1])


def _pieces(black: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Connected ink (N, H, W), numbered over all images from 1, and which numbers are pieces."""
    labels, count = scipy.ndimage.label(black, _WITHIN_IMAGE)
    is_piece = np.bincount(labels.ravel(), minlength=count + 1) >= SMALLEST_PIECE
    is_piece[0] = False  # paper
    return labels, is_piece


def _is_ink(images: ArrayLike) -> NDArray[np.bool_]:
    x: NDArray[Any] = np.asarray(images)
    if x.ndim != 3:
        raise ValueError(f"images have shape {x.shape}; (N, H, W) is needed")
    return x >= INK_LEVEL


def _second_moments(images: ArrayLike) -> dict[str, Floats]:
    """Central second moments of the grey levels in square pixels; x points right, y up."""
    weight = np.asarray(images, dtype=np.float64)
    weight = weight / np.maximum(weight.sum((1, 2), keepdims=True), 1e-12)
    _, h, w = weight.shape
    x, y = np.arange(w, dtype=np.float64), -np.arange(h, dtype=np.float64)[:, None]
    dx = x - (weight * x).sum((1, 2))[:, None, None]
    dy = y - (weight * y).sum((1, 2))[:, None, None]
    pairs = {"xx": dx * dx, "yy": dy * dy, "xy": dx * dy}
    return {name: (weight * product).sum((1, 2)) for name, product in pairs.items()}
