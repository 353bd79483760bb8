import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from hw3lib.book import explorer


def tiles(rows=3, columns=4, size=28):
    return np.random.default_rng(0).uniform(0, 15, (rows, columns, size, size))


def page(x, captions=None, name="explorer-test"):
    rows, columns = x.shape[:2]
    captions = captions or [f"tile {i}" for i in range(rows * columns)]
    return explorer.explorer(x, (range(columns), range(rows)), captions, name=name)


def test_the_picture_holds_the_tiles_where_the_script_looks_for_them():
    x = tiles()
    html = page(x)
    png = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)[1]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"))
    for row in range(3):
        for column in range(4):
            shown = sheet[row * 28 : (row + 1) * 28, column * 28 : (column + 1) * 28]
            assert np.abs(shown / 17 - x[row, column]).max() <= 0.5 + 1e-9


def test_it_needs_nothing_from_outside():
    html = page(tiles())
    assert not re.search(r"https?:|<script[^>]+src|@import|url\(", html)


def test_axis_values_and_captions_reach_the_script_row_by_row():
    settings = json.loads(re.search(r"const s = (\{.*\});", page(tiles()))[1])
    assert settings["z1"] == [0, 1, 2, 3]
    assert settings["z2"] == [0, 1, 2]
    assert settings["captions"][1 * 4 + 2] == "tile 6"


def test_captions_cannot_break_out_of_the_script():
    html = page(tiles(1, 2), ["</script><b>", 'a "quoted" one'])
    assert html.count("</script>") == 1
    assert "<b>" not in html


def test_a_sheet_of_nine_hundred_smooth_tiles_stays_small():
    y, x = np.mgrid[:28, :28]
    centres = np.linspace(8, 20, 30)
    distance = (y - centres[:, None, None, None]) ** 2 + (x - centres[None, :, None, None]) ** 2
    smooth = 15 * np.exp(-distance / 20)
    assert len(page(smooth)) < 400_000


def test_greys_are_rounded_to_the_nearest_and_clipped():
    assert explorer.quantise([0, 0.49, 0.51, 14.6, 15, 16]).tolist() == [0, 0, 1, 15, 15, 15]
    assert explorer.quantise([0.5, 1.0], vmax=1).tolist() == [8, 15]


def test_shapes_and_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="captions"):
        explorer.explorer(tiles(), (range(4), range(3)), ["one"], name="x")
    with pytest.raises(ValueError, match="axis values"):
        explorer.explorer(tiles(), (range(3), range(3)), ["t"] * 12, name="x")
    with pytest.raises(ValueError, match="letters"):
        page(tiles(), name='x" onload="')
