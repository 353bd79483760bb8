"""The four views of a figure, as a browser's reader would pick them."""

import re
import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hw3lib.book import figures, picture

NAMESPACE = {"svg": "http://www.w3.org/2000/svg"}


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def panels(rows=1, columns=3, **settings):
    fig, axes = plt.subplots(rows, columns, **settings)
    for ax in np.atleast_1d(axes).ravel():
        ax.plot([0, 1], [0, 1], label="A")
    return fig


def sizes(svg):
    root = ET.fromstring(svg)
    views = {view.get("id"): view.get("viewBox") for view in root.findall("svg:view", NAMESPACE)}
    return {name: tuple(map(float, box.split()[2:])) for name, box in views.items()}


def test_a_wide_figure_is_narrow_and_high_on_a_phone():
    fig = panels(figsize=(10, 4), sharey=True)
    svg = picture.as_svg(fig, "Run 0")
    found = sizes(svg)
    assert found["light"] == found["dark"] != found["light-narrow"] == found["dark-narrow"]
    wide, narrow = found["light"], found["light-narrow"]
    assert wide[0] / 72 == pytest.approx(10, abs=0.3)
    assert narrow[0] / 72 == pytest.approx(picture.NARROW, abs=0.3)
    assert narrow[1] > 2 * wide[1]
    assert float(re.search(r'data-text="([\d.]+)"', svg)[1]) >= 9


def test_a_figure_that_fits_has_one_layout():
    svg = picture.as_svg(panels(columns=1, figsize=(5, 3)), "Run 0")
    assert len(set(sizes(svg).values())) == 1
    assert 'class="narrow"' not in svg


def test_a_figure_with_text_too_small_on_a_phone_has_a_narrow_layout():
    svg = picture.as_svg(panels(columns=1, figsize=(6, 3)), "Run 0")
    assert float(re.search(r'data-text="([\d.]+)"', svg)[1]) >= picture.SMALLEST


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_panels_keep_their_order_and_get_the_labels_that_they_shared(columns):
    fig = panels(2, 3, figsize=(10, 6), sharex=True, sharey=True)
    for number, ax in enumerate(fig.axes):
        ax.set_title(str(number))
    fig.axes[0].set_ylabel("Loss")
    fig.axes[3].set_xlabel("Epoch")
    narrow = picture._narrowed(fig, columns)
    narrow.canvas.draw()
    corners = [(round(-ax.get_position().y1, 2), ax.get_position().x0) for ax in narrow.axes]
    order = [narrow.axes[i].get_title() for i in np.lexsort(np.array(corners).T[::-1])]
    assert order == [str(number) for number in range(6)]
    if columns < 3:
        assert {(ax.get_xlabel(), ax.get_ylabel()) for ax in narrow.axes} == {("Epoch", "Loss")}
    assert fig.axes[1].get_ylabel() == ""
    assert tuple(fig.get_size_inches()) == (10, 6)


def test_greys_turn_around_and_colours_white_and_pictures_do_not():
    fig, ax = plt.subplots()
    ax.plot([0, 1], color="0.2")
    ax.plot([1, 0], color="C0")
    ax.text(0, 0, "x", color="white")
    svg = picture.as_svg(fig, "")
    assert "stroke: var(--g33)" in svg
    assert "stroke: #0173b2" in svg
    assert "fill: #ffffff" in svg
    light = re.search(r"^svg\{(.*?)\}", svg.split("butt}")[1])[1]
    dark = re.search(r"#dark-narrow:target~svg\{(.*?)\}", svg)[1]
    for level in set(re.findall(r"var\(--g(\w\w)\)", svg)) - {"fe"}:
        before = int(re.search(rf"--g{level}:#(..)", light)[1], 16)
        after = int(re.search(rf"--g{level}:#(..)", dark)[1], 16)
        assert abs((255 - before) - after) < 80
        assert before != after


def test_a_figure_gives_the_same_file_twice():
    files = [picture.as_svg(panels(figsize=(10, 4)), "Run 0") for _ in range(2)]
    assert files[0] == files[1]


def test_a_crowd_of_points_is_drawn_as_pixels():
    fig, ax = plt.subplots()
    points = ax.scatter(*np.random.default_rng(0).normal(size=(2, 20_000)))
    svg = picture.as_svg(fig, "")
    assert "<image" in svg
    assert len(svg) < 400_000
    assert not points.get_rasterized()


@pytest.mark.parametrize("fails", [False, True])
def test_a_figure_stays_as_it_is_also_where_it_cannot_be_drawn(monkeypatch, fails):
    fig, ax = plt.subplots(figsize=(10, 4))
    points = ax.scatter(*np.random.default_rng(0).normal(size=(2, 20_000)))
    image = ax.imshow([[0, 1]], interpolation="nearest")
    boxed = ax.text(0, 0, "7", bbox={"facecolor": "white", "alpha": 0.8})
    before = boxed.get_bbox_patch().get_facecolor()
    if fails:
        monkeypatch.setattr(fig, "savefig", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            picture.as_svg(fig, "")
    else:
        assert f"--g{picture.GROUND[1:3]}" in picture.as_svg(fig, "")
    assert not points.get_rasterized()
    assert image.get_interpolation() == "nearest"
    assert boxed.get_bbox_patch().get_facecolor() == before


def test_the_source_is_read_as_it_was_written():
    source = "Runs 01234567 · <cpu> & more"
    assert picture.source_of(picture.as_svg(panels(columns=1), source)) == source
    assert picture.source_of("<svg></svg>") == ""


def test_pyplot_knows_no_figure_more_than_before():
    before = plt.get_fignums()
    fig = panels(figsize=(10, 4))
    picture.as_svg(fig, "")
    assert plt.get_fignums() == [*before, fig.number]


def test_text_on_a_coloured_cell_keeps_its_ink_on_a_dark_page():
    fig, ax = plt.subplots()
    ax.imshow([[0, 1]], cmap="viridis")
    for j, ink in enumerate((figures.FIXED_WHITE, figures.FIXED_BLACK)):
        ax.text(j, 0, "7", color=ink)
    svg = picture.as_svg(fig, "Run 0")
    for ink in (figures.FIXED_WHITE, figures.FIXED_BLACK):
        assert f"fill: {ink}" in svg
