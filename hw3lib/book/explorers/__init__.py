"""Page elements with which a reader explores stored results: arrays in, HTML out.

Each holds all that it shows: pictures in a PNG, numbers, and a few lines of script. It needs no
server, no network and no library, and works in a notebook, on a page and from a file.

- `explorer`: sliders and choices, and what belongs to each of their states.
- `attack_explorer`: a run of `PicturesByRadius`.
- `plane`: the tiles of a latent plane, under the pointer.
"""

from hw3lib.book.explorers.attacks import attack_explorer
from hw3lib.book.explorers.chart import Chart
from hw3lib.book.explorers.controls import Choice, Slider
from hw3lib.book.explorers.element import explorer
from hw3lib.book.explorers.latent_plane import Codes, plane
from hw3lib.book.explorers.panels import Attacked, Bars, Picture

__all__ = [
    "Attacked",
    "Bars",
    "Chart",
    "Choice",
    "Codes",
    "Picture",
    "Slider",
    "attack_explorer",
    "explorer",
    "plane",
]
