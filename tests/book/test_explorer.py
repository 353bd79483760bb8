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


@pytest.mark.browser
def test_it_follows_mouse_touch_and_keys_and_keeps_a_tile_that_is_clicked(browser, tmp_path):
    (tmp_path / "page.html").write_text(
        "<!doctype html>" + page(tiles()) + "<p>" + 200 * "text<br>"
    )
    tab = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    tab.goto((tmp_path / "page.html").as_uri())
    plane, said = tab.locator(".plane"), tab.locator("output")
    box = plane.bounding_box()

    def over(row, column):
        return box["x"] + box["width"] * (column + 0.5) / 4, box["y"] + box["height"] * (
            row + 0.5
        ) / 3

    tab.mouse.move(*over(2, 1))
    assert "tile 9" in said.inner_text()
    tab.mouse.click(*over(0, 3))
    tab.mouse.move(*over(1, 1))
    assert "tile 3" in said.inner_text()
    tab.mouse.click(*over(1, 1))
    tab.mouse.move(*over(2, 2))
    assert "tile 10" in said.inner_text()
    plane.focus()
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("Home")
    assert "tile 4" in said.inner_text()
    tab.touchscreen.tap(*over(0, 0))
    assert "tile 0" in said.inner_text()
    # A finger that moves up or down over the plane scrolls the page.
    assert plane.evaluate("plane => getComputedStyle(plane).touchAction") == "pan-y"
    tab.close()


@pytest.mark.browser
def test_it_shows_the_tile_itself(browser, tmp_path):
    x = tiles()
    (tmp_path / "page.html").write_text("<!doctype html>" + page(x))
    tab = browser.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    plane = tab.locator(".plane")
    plane.focus()
    for keys, (row, column) in ((["Home"], (1, 0)), (["ArrowDown", "End"], (2, 3))):
        for key in keys:
            tab.keyboard.press(key)
        pixels = tab.locator("canvas").evaluate(
            "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
        )
        shown = np.array(pixels).reshape(28, 28, 4)[..., 0] / 17
        assert np.abs(shown - x[row, column]).max() <= 0.5 + 1e-9
    tab.close()
