"""Images land where they should on the canvas."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hw3lib.book import figures
from hw3lib.book.picture import source_of
from hw3lib.stats import Interval
from tests.book.notebooks import outputs_of


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2))
def test_every_image_is_found_in_its_tile(n, columns, pad):
    images = np.random.default_rng(n).integers(0, 16, (n, 3, 4))
    canvas = figures.tile(images, columns, pad)
    rows = -(-n // columns)
    assert canvas.shape == (rows * (3 + pad) - pad, columns * (4 + pad) - pad)
    for i, image in enumerate(images):
        top, left = (i // columns) * (3 + pad), (i % columns) * (4 + pad)
        np.testing.assert_array_equal(canvas[top : top + 3, left : left + 4], image)


def test_panels_draw_every_set_once():
    figures.use_style()
    fig = figures.image_panels([("a", np.zeros((4, 28, 28))), ("b", np.ones((4, 28, 28)))], 2)
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"]
    assert all(len(ax.images) == 1 for ax in fig.axes)
    plt.close(fig)


def test_each_panel_has_a_letter_and_keeps_its_title():
    figures.use_style()  # where a colour bar is no panel
    fig, axes = plt.subplots(2, 2)
    fig.colorbar(axes[0, 1].imshow(np.eye(2)), ax=axes[0, 1])
    axes[0, 0].twinx()
    axes[1, 0].set_title("a name")
    figures.letter(fig)
    assert [ax.get_title("left") for ax in axes.flat] == ["(a)", "(b)", "(c)", "(d)"]
    assert [ax.get_title("left") for ax in fig.axes[4:]] == ["", ""]
    assert axes[1, 0].get_title() == "a name"
    plt.close(fig)


def test_a_band_takes_the_colour_of_its_curve():
    fig, ax = plt.subplots()
    (line,) = ax.plot([0, 1], [0, 1], color="C3")
    figures.band(ax, [0, 1], [0, 0], [1, 2])
    (shade,) = ax.collections
    assert shade.get_facecolor()[0][:3] == pytest.approx(plt.matplotlib.colors.to_rgb("C3"))
    assert line in ax.lines
    plt.close(fig)


def test_series_stand_side_by_side_with_their_marks():
    _, ax = plt.subplots()
    series = {
        name: {
            place: Interval(0.1 * k, 0, 1, 10) for k, place in enumerate(("clean", "strong PGD"))
        }
        for name in ("a", "b")
    }
    figures.grouped(ax, series, {("b", "strong PGD"): 0.7})
    assert [label.get_text() for label in ax.get_xticklabels()] == ["clean", "strong\nPGD"]
    places = [container.lines[0].get_xdata() for container in ax.containers]
    np.testing.assert_allclose(np.mean(places, 0), [0, 1])
    assert (places[0] < places[1]).all()
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(
        [line.get_ydata() for line in crosses], [[np.nan] * 2, [np.nan, 0.7]]
    )
    assert crosses[1].get_color() == "C1"
    plt.close()


def test_contours_of_a_gaussian_hold_their_share_of_it():
    fig, ax = plt.subplots()
    figures.gaussian_contours(ax, [1.0, -2.0], [0.5, 3.0], [0.5, 0.95])
    draws = np.random.default_rng(0).normal([1.0, -2.0], [0.5, 3.0], size=(20_000, 2))
    for patch, share in zip(ax.patches, [0.5, 0.95], strict=True):
        inside = ((draws - patch.center) / [patch.width / 2, patch.height / 2]) ** 2
        assert (inside.sum(1) <= 1).mean() == pytest.approx(share, abs=0.015)
    plt.close(fig)


def test_a_signed_figure_says_its_source_in_the_file_that_it_is_saved_to(tmp_path):
    source = "Runs 01234567, 89abcdef · seed 0 · cpu, 1 threads · hw3lib 0.1.0"
    with plt.rc_context():
        figures.use_style()
        fig, ax = plt.subplots(figsize=(2, 1))
        ax.plot([0, 1])
        figures.sign(fig, source)
        fig.savefig(tmp_path / "signed.png")
    with Image.open(tmp_path / "signed.png") as file:
        assert file.info["Source"] == source
    plt.close(fig)


def test_in_a_notebook_a_signed_figure_is_shown_once_with_its_source_below():
    code = (
        "import matplotlib.pyplot as plt\nfrom hw3lib.book import figures\n"
        "fig, ax = plt.subplots()\nfigures.sign(fig, 'Run 01234567 · <cpu>')"
    )
    shown, line = outputs_of(code)
    assert set(shown.data) == {"image/svg+xml", "image/png", "text/plain"}
    assert source_of(shown.data["image/svg+xml"]) == "Run 01234567 · <cpu>"
    assert line.text == "Source: Run 01234567 · <cpu>\n"


def test_colours_of_ordered_curves_are_seen_on_light_and_on_dark_pages():
    rgb = figures.steps_of_colour(7)[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    light = linear @ [0.2126, 0.7152, 0.0722]
    dark_page = 0.01
    assert (1.05 / (light + 0.05) >= 3).all()
    assert ((light + 0.05) / (dark_page + 0.05) >= 3).all()
    assert (np.diff(light) < 0).all()
