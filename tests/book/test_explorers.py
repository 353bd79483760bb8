"""Explorers in a browser: what a reader sees is what the arrays hold, however it is reached."""

import base64
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from hw3lib.book.explorers import (
    Attacked,
    Bars,
    Chart,
    Choice,
    Codes,
    Picture,
    Slider,
    attack_explorer,
    explorer,
    plane,
)
from hw3lib.book.explorers.sheet import quantise, sheet
from hw3lib.book.figures import tile
from hw3lib.experiments.catalog import named
from hw3lib.experiments.part1.vae_training import load_vae
from hw3lib.runs import find
from tests.book.notebooks import NOTEBOOKS, read
from tests.book.test_pages import violations

RNG = np.random.default_rng(0)
TILES = RNG.uniform(0, 15, (3, 4, 28, 28))
ORIGINAL = RNG.integers(30, 200, (1, 2, 8, 8, 3)).astype(np.uint8)
CHANGE = RNG.integers(-30, 31, (3, 2, 8, 8, 3)).astype(np.int8)
SHARES = RNG.dirichlet(np.ones(4), (3, 2))
TRUTH = np.array([[1, 2]])
NAMES = ["cat", "dog", "<i>frog</i>", "ship"]


def page_of_plane(x=TILES, captions=None, name="explorer-test"):
    rows, columns = x.shape[:2]
    captions = captions or [f"tile {i}" for i in range(rows * columns)]
    return plane(
        x,
        (range(columns), range(rows)),
        captions,
        name=name,
        classes=np.arange(rows * columns).reshape(rows, columns) % 10,
        codes=Codes(np.array([[0.5, 0.5], [0.1, 0.9]]), [3, 4]),
    ).data


def page_of_states(**options):
    return explorer(
        "explorer-test",
        [Slider("ε", ["0", "1/255", "2/255"], start=1), Choice("Picture", ["first", "second"])],
        [Attacked(ORIGINAL, CHANGE), Bars(NAMES, SHARES, TRUTH)],
        **options,
    ).data


def page_of_chart():
    _, ax = plt.subplots()
    ax.set(xlabel="Samples L", ylabel="Error", xscale="log", xlim=(1, 100), ylim=(0, 10))
    return explorer(
        "explorer-test",
        [Slider("D", ["1", "2"]), Slider("L", ["1", "10", "100"])],
        [
            Chart(ax, x=np.array([[1, 10, 100]]), y=np.array([[8, 4, 2], [9, 6, 5]]), along=1),
            Picture("Digits", TILES[:2, :3]),
            Picture("One digit for each D", TILES[:2, 3:]),
        ],
        captions=[[f"D {d}, L {L}" for L in (1, 10, 100)] for d in (1, 2)],
    ).data


PAGES = {"plane": page_of_plane, "states": page_of_states, "chart": page_of_chart}


def settings_of(html):
    return json.loads(re.search(r'\(document\.getElementById\("[\w-]+"\), (\{.*\})\);', html)[1])


# What an explorer is


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_it_needs_nothing_from_outside(page):
    assert not re.search(r"https?:|<script[^>]+src|@import|url\(", page())


def test_a_sheet_holds_the_pictures_where_the_script_looks_for_them():
    x = quantise(RNG.uniform(0, 15, (7, 5, 6)))
    packed = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet(x)))).convert("L"))
    for i, one in enumerate(x):
        row, column = divmod(i, 3)
        assert (packed[row * 5 :][:5, column * 6 :][:, :6] == 17 * one).all()


def test_greys_are_rounded_to_the_nearest_and_clipped():
    assert quantise([0, 0.49, 0.51, 14.6, 15, 16]).tolist() == [0, 0, 1, 15, 15, 15]
    assert quantise([0.5, 1.0], vmax=1).tolist() == [8, 15]


def test_a_sheet_of_nine_hundred_smooth_tiles_stays_small():
    y, x = np.mgrid[:28, :28]
    centres = np.linspace(8, 20, 30)
    distance = (y - centres[:, None, None, None]) ** 2 + (x - centres[None, :, None, None]) ** 2
    assert len(page_of_plane(15 * np.exp(-distance / 20))) < 400_000


def test_axis_values_and_captions_reach_the_script_row_by_row():
    settings = settings_of(page_of_plane())
    assert settings["z1"] == [0, 1, 2, 3]
    assert settings["z2"] == [0, 1, 2]
    assert settings["captions"][1 * 4 + 2] == "tile 6"


def test_words_cannot_break_out():
    evil = "</script><b>"
    for html in (page_of_plane(TILES[:1, :2], [evil, '"']), page_of_states(captions=[[evil]])):
        assert html.count("</script>") == 1
        assert "<b>" not in html
    assert "<i>" not in page_of_states()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="captions"):
        page_of_plane(captions=["one"])
    with pytest.raises(ValueError, match="letters"):
        page_of_plane(name='x" onload="')
    with pytest.raises(ValueError, match="does not fit controls"):
        explorer("x", [Slider("a", ["1", "2"])], [Picture("p", TILES)])
    with pytest.raises(ValueError, match=r"sums with pictures 0\.\.255"):
        explorer("x", [Slider("a", ["1"])], [Attacked(ORIGINAL[:, 0], -CHANGE[:1, 0] - 100)])
    with pytest.raises(ValueError, match="y: some points lie outside of the limits 0 to 1"):
        Chart(plt.subplots(subplot_kw={"ylim": (0, 1)})[1], x=[0, 1], y=[0, 2], along=0)
    with pytest.raises(ValueError, match="4 classes need as many shares"):
        explorer("x", [Slider("a", ["1"])], [Bars(NAMES, [[1.0, 0, 0]], [0])])


# What a reader sees


@pytest.fixture
def tab(browser):
    tab = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    yield tab
    tab.close()
    assert said == []


def opened(tab, path, html):
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>An explorer</title>'
    path.write_text(f"{head}<article class='bd-article'>{html}</article>" + 200 * "<p>text")
    tab.goto(path.as_uri())
    tab.wait_for_selector("[data-ready]")
    return tab.locator("output")


def on_page(name):
    """The explorer of this name, as the pages hold it."""
    outputs = (
        output.get("data", {}).get("text/html", "")
        for path in NOTEBOOKS
        for cell in read(path).cells
        for output in cell.get("outputs", [])
    )
    return next(html for html in outputs if f'<div id="{name}"' in html)


PIXELS = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const pen = copy.getContext("2d", {willReadFrequently: true});
  pen.drawImage(canvas, 0, 0);
  return [copy.height, copy.width, ...pen.getImageData(0, 0, copy.width, copy.height).data];
}"""


def pixels(tab, selector="canvas", number=0):
    height, width, *values = tab.locator(selector).nth(number).evaluate(PIXELS)
    return np.array(values).reshape(height, width, 4)[..., :3]


def centre(locator, x=0.5, y=0.5):
    box = locator.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def percents(tab):
    """The numbers beside the bars, as they are written."""
    return [
        text.split()[-1].removesuffix("%") for text in tab.locator(".bars li").all_inner_texts()
    ]


def assert_attacked(tab, eps, picture):
    attacked = ORIGINAL[0, picture].astype(int) + CHANGE[eps, picture]
    assert (pixels(tab, number=1) == attacked).all()
    change = CHANGE[eps, picture] / np.abs(CHANGE[eps, picture].astype(int)).max()
    assert np.abs(pixels(tab) - (128 + 127 * change)).max() <= 0.5
    shown = percents(tab)
    assert shown == [f"{100 * share:.1f}" for share in SHARES[eps, picture].round(3)]
    top, truth = SHARES[eps, picture].argmax(), TRUTH[0, picture]
    right = "That is right." if top == truth else f"The picture shows: {NAMES[truth]}."
    said = tab.locator("output").inner_text()
    assert said == f"The network says {NAMES[top]}, {shown[top]}%. {right}"


@pytest.mark.browser
def test_an_attacked_picture_and_its_probabilities_by_mouse_touch_and_keys(tab, tmp_path):
    opened(tab, tmp_path / "page.html", page_of_states())
    slider, choices = tab.get_by_label("ε"), tab.locator("fieldset label")
    assert_attacked(tab, 1, 0)
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert_attacked(tab, 2, 0)
    assert slider.get_attribute("aria-valuetext") == "2/255"
    tab.touchscreen.tap(*centre(choices.nth(1)))
    assert_attacked(tab, 2, 1)
    tab.mouse.click(*centre(slider, x=0.02))
    assert_attacked(tab, 0, 1)
    tab.get_by_label("second").focus()
    tab.keyboard.press("ArrowLeft")
    assert_attacked(tab, 0, 0)
    tab.touchscreen.tap(*centre(slider))
    assert_attacked(tab, 1, 0)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("stored", "element"), [("shapes_by_radius", "explorer-q2-3"), ("by_alpha", "explorer-q2-2")]
)
def test_stored_attacks_are_shown_as_they_are_stored(stored, element, tab, tmp_path):
    run = find(named(0)[stored])
    said = opened(tab, tmp_path / "page.html", on_page(element))
    slider, choices = tab.get_by_label("Radius ε"), tab.locator("fieldset label")
    classes, label = run.results["classes"], run.arrays["label"]
    slider.focus()
    tab.keyboard.press("Home")
    answer = classes[run.arrays["clean"][0, 0].argmax()]
    assert f"says {answer}" in said.inner_text()
    assert (pixels(tab, number=1) == run.arrays["original"][0].transpose(1, 2, 0)).all()
    tab.touchscreen.tap(*centre(choices.nth(1)))  # the second network
    tab.mouse.click(*centre(choices.nth(4)))  # under PGD
    tab.touchscreen.tap(*centre(choices.nth(8)))  # the third picture
    slider.focus()
    tab.keyboard.press("End")
    network, attack, radius, picture = 1, 1, -1, 2
    place = network, attack, radius, picture
    attacked = run.arrays["original"][picture].astype(int) + run.arrays["change"][place]
    assert (pixels(tab, number=1) == attacked.transpose(1, 2, 0)).all()
    chances = run.arrays["probabilities"][place]
    assert percents(tab) == [
        f"{share:.1f}" for share in (1000 * chances.astype(float)).round() / 10
    ]
    truth, answer = classes[label[picture]], classes[chances.argmax()]
    assert f"says {answer}" in said.inner_text()
    assert said.inner_text().endswith("right." if truth == answer else f"shows: {truth}.")


def test_every_network_has_a_name():
    run = find(named(0)["by_radius"])
    assert len(run.arrays["label"]) == 12
    with pytest.raises(ValueError, match="2 names for 1 networks"):
        attack_explorer("x", run, ["one", "two"])


@pytest.mark.browser
def test_a_chart_marks_the_chosen_point_of_the_chosen_curve(tab, tmp_path):
    said = opened(tab, tmp_path / "page.html", page_of_chart())
    mark = tab.locator(".mark")
    curves = tab.locator(".curve").evaluate_all("all => all.map(c => c.getAttribute('d'))")

    def marked():
        chosen = tab.locator(".curve.chosen").get_attribute("d")
        place = mark.get_attribute("cx"), mark.get_attribute("cy")
        return curves.index(chosen), [float(value) for value in place]

    # One of three decades is half of a logarithmic axis from 1 to 100, which goes from 68 to 328.
    assert marked() == (0, [68, 190 - 0.8 * 180])
    tab.get_by_label("L", exact=True).focus()
    tab.keyboard.press("ArrowRight")
    assert marked() == (0, [(68 + 328) / 2, 190 - 0.4 * 180])
    tab.get_by_label("D", exact=True).focus()
    tab.keyboard.press("End")
    assert marked() == (1, [(68 + 328) / 2, 190 - 0.6 * 180])
    assert said.inner_text() == "D 2, L 10"
    assert np.abs(pixels(tab) / 17 - TILES[1, 1][..., None]).max() <= 0.5 + 1e-9
    assert np.abs(pixels(tab, number=1) / 17 - TILES[1, 3][..., None]).max() <= 0.5 + 1e-9
    ticks = tab.locator("svg text").all_text_contents()
    assert {"1", "10", "100", "Samples L", "Error"} <= set(ticks)


@pytest.mark.browser
def test_a_plane_follows_mouse_touch_and_keys_and_keeps_a_tile(tab, tmp_path):
    said = opened(tab, tmp_path / "page.html", page_of_plane())
    surface = tab.locator(".plane")

    def over(row, column):
        return centre(surface, (column + 0.5) / 4, (row + 0.5) / 3)

    tab.mouse.move(*over(2, 1))
    assert "tile 9" in said.inner_text()
    tab.mouse.click(*over(0, 3))
    tab.mouse.move(*over(1, 1))
    assert "tile 3" in said.inner_text()
    tab.mouse.click(*over(1, 1))
    tab.mouse.move(*over(2, 2))
    assert "tile 10" in said.inner_text()
    surface.focus()
    tab.keyboard.press("Enter")
    tab.mouse.move(*over(0, 0))
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("Home")
    assert "tile 4" in said.inner_text()
    tab.touchscreen.tap(*over(0, 0))
    assert "tile 0" in said.inner_text()


@pytest.mark.browser
def test_a_plane_shows_the_tile_itself(tab, tmp_path):
    opened(tab, tmp_path / "page.html", page_of_plane())
    tab.locator(".plane").focus()
    for keys, place in ((["Home"], (1, 0)), (["ArrowDown", "End"], (2, 3))):
        for key in keys:
            tab.keyboard.press(key)
        shown = pixels(tab, ".picture canvas") / 17
        assert np.abs(shown - TILES[place][..., None]).max() <= 0.5 + 1e-9


@pytest.mark.browser
def test_a_walk_leads_from_one_kept_tile_to_another(tab, tmp_path):
    said = opened(tab, tmp_path / "page.html", page_of_plane())
    start, end = tab.locator("button").all()
    tab.locator(".plane").focus()
    for key in ("ArrowUp", "Home"):
        tab.keyboard.press(key)
    start.click()
    tab.locator(".plane").focus()
    for key in ("PageDown", "End"):
        tab.keyboard.press(key)
    end.tap()
    slider = tab.get_by_role("slider")
    slider.focus()
    for key, number in (("Home", 0), ("End", 11), ("ArrowLeft", 11)):
        tab.keyboard.press(key)
        assert f"tile {number}" in said.inner_text()
    tab.mouse.click(*centre(slider))
    assert "tile 6" in said.inner_text()  # row 1, column 1.5 is rounded up
    strip = pixels(tab, ".strip") / 17
    for part, place in ((strip[:, :28], (0, 0)), (strip[:, -28:], (2, 3))):
        assert np.abs(part - TILES[place][..., None]).max() <= 0.5 + 1e-9


@pytest.mark.browser
def test_layers_lie_over_the_plane_where_classes_and_codes_are(tab, tmp_path):
    opened(tab, tmp_path / "page.html", page_of_plane())
    bare = pixels(tab, ".layer")
    tab.touchscreen.tap(*centre(tab.get_by_text("class of each tile")))
    classes = pixels(tab, ".layer")
    height, width = classes.shape[:2]
    corner = classes[height // 3 + 3, width // 4 + 3]  # of tile 5, whose class is 5
    assert np.abs(corner - [0xCA, 0x91, 0x61]).max() <= 2
    tab.get_by_label("codes of test images").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowLeft")
    codes = pixels(tab, ".layer")
    near = codes[: height // 5, : width // 5].reshape(-1, 3)  # the code at 0.1, 0.9 of class 4
    assert np.abs(near - [0xCC, 0x78, 0xBC]).sum(1).min() <= 6
    tab.mouse.click(*centre(tab.get_by_text("pictures alone")))
    assert (pixels(tab, ".layer") == bare).all()


@pytest.mark.browser
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_fits_a_phone_and_lets_a_finger_scroll(tab, tmp_path, page, scheme):
    opened(tab, tmp_path / "page.html", page())
    tab.evaluate(
        "scheme => { document.documentElement.dataset.theme = scheme;"
        "if (scheme === 'dark') document.body.style = 'background: #121212; color: #ced6dd'; }",
        scheme,
    )
    assert violations(tab, contrast=True, rest=True) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    moved = tab.locator(".plane, input[type=range]")
    assert set(moved.evaluate_all("all => all.map(e => getComputedStyle(e).touchAction)")) == {
        "pan-y"
    }


def assert_greys(shown, images, vmax):
    assert (shown == 17 * quantise(images, vmax)[..., None]).all()


@pytest.mark.browser
def test_epochs_of_the_page_are_those_of_the_run(tab, tmp_path):
    run = find(named(0)["samples"])
    said = opened(tab, tmp_path / "page.html", on_page("explorer-q1-09"))
    rows, images = run.results["rows"], run.arrays["images"]
    slider = tab.get_by_label("Epoch", exact=True)
    slider.focus()
    for key, epoch in (("End", rows[-1]), ("Home", rows[1])):
        tab.keyboard.press(key)
        when = "Before training " if int(epoch) == 0 else f"After epoch {epoch} "
        assert said.inner_text().startswith(when)
        assert_greys(pixels(tab), tile(images[rows.index(epoch)], columns=8), 15)
    tab.touchscreen.tap(*centre(slider, x=0.4))  # the third of six
    assert said.inner_text().startswith(f"After epoch {rows[3]} ")


@pytest.mark.browser
def test_the_betas_of_the_page_are_those_of_the_sweep(tab, tmp_path):
    sweep = [find(one) for one in named(0)["sweep"]]
    said = opened(tab, tmp_path / "page.html", on_page("explorer-q1-11-beta"))
    slider = tab.get_by_label("β")
    for place, move in (
        (0, lambda x: tab.mouse.click(*x)),
        (-1, lambda x: tab.touchscreen.tap(*x)),
    ):
        move(centre(slider, x=0.01 if place == 0 else 0.99))
        run = sweep[place]
        for number, name, scale in ((1, "reconstructions", 1), (2, "samples", 17)):
            grid = tile(scale * run.arrays[name][:16], columns=4)
            assert_greys(pixels(tab, number=number), grid, 255)
        rate, distortion = (run.results["test"][name] for name in ("kl", "nll"))
        assert f"costs {rate:.1f} nats and leaves {distortion:.1f} nats" in said.inner_text()
    slider.focus()
    tab.keyboard.press("ArrowLeft")
    assert said.inner_text().startswith(f"β = {sweep[-2].settings.beta:g}:")


@pytest.mark.browser
def test_the_traversals_of_the_page_are_those_of_the_runs(tab, tmp_path):
    factors = [find(one) for one in named(0)["sweep_factors"]]
    opened(tab, tmp_path / "page.html", on_page("explorer-q1-11-traversal"))
    beta, value = tab.get_by_label("β"), tab.get_by_label("Its value")
    value.focus()
    tab.keyboard.press("End")
    tab.touchscreen.tap(*centre(tab.get_by_text("second")))
    tab.mouse.click(*centre(beta, x=0.99))
    assert_greys(pixels(tab), factors[-1].arrays["traversals"][1, -1], 255)
    value.focus()
    tab.keyboard.press("Home")
    assert_greys(pixels(tab), factors[-1].arrays["traversals"][1, 0], 255)


@pytest.mark.browser
def test_the_estimates_of_the_page_are_those_of_the_study(tab, tmp_path):
    study = find(named(0)["linear_gaussian"])
    said = opened(tab, tmp_path / "page.html", on_page("explorer-q1-02"))

    def assert_says(source, d, size):
        row = study.results[source][d]
        text = (
            f"With {study.settings.sizes[size]:,} of the {source}'s samples the bias is "
            f"{row['error'][size]:z.2f} nats [{row['error_low'][size]:z.2f}, "
            f"{row['error_high'][size]:z.2f}], and {row['ess'][size]:,.1f} of them are effective."
        )
        assert said.inner_text() == text.replace("-", "\N{MINUS SIGN}")

    tab.get_by_label("Dimensions D").focus()
    tab.keyboard.press("End")
    tab.mouse.click(*centre(tab.get_by_label("Samples L", exact=True), x=0.01))
    assert_says("prior", -1, 0)
    tab.touchscreen.tap(*centre(tab.get_by_text("the encoder")))
    tab.touchscreen.tap(*centre(tab.get_by_label("Samples L", exact=True), x=0.99))
    assert_says("encoder", -1, -1)


@pytest.mark.browser
def test_the_plane_of_the_page_is_that_of_the_decoder(tab, tmp_path):
    opened(tab, tmp_path / "page.html", on_page("explorer-q1-10"))
    tiles = load_vae(named(0)["plane"]).manifold(30)[1].numpy()
    surface = tab.locator(".plane")
    tab.mouse.click(*centre(surface, 0.5 / 30, 0.5 / 30))
    # A pixel on the border of two greys may fall to either side on another processor.
    assert np.abs(pixels(tab, ".picture canvas") / 17 - tiles[0, 0][..., None]).max() <= 0.51
    tab.touchscreen.tap(*centre(surface, 20.5 / 30, 3.5 / 30))
    assert np.abs(pixels(tab, ".picture canvas") / 17 - tiles[3, 20][..., None]).max() <= 0.51
