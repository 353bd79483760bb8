"""The report's numbers come from one file, each with its meaning."""

import re
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from hw3lib import stats
from hw3lib.book import report
from hw3lib.experiments.part2.attacked import SUITE
from hw3lib.runs.store import PUBLISHED


def test_a_number_is_found_by_its_name():
    assert report.value("q1.8.test_bpd") == 0.56


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"q1\.8\.test_bpd"):
        report.value("q1.8.tset_bpd")


def test_our_accuracies_stand_beside_the_reports_by_both_protocols():
    """The course counts its own images, for it an image that was wrong before is no success."""
    right = np.zeros((1 + len(SUITE), 10_000), dtype=bool)
    names = ["clean", *SUITE]
    right[names.index("clean"), :9200] = True
    right[names.index("FGSM"), :1506] = True
    in_course = np.arange(10_000) < 2500
    run = SimpleNamespace(
        settings=SimpleNamespace(attacks=tuple(SUITE.values())),
        results={
            kind: [asdict(stats.proportion(int(row.sum()), len(row))) for row in rows]
            for kind, rows in (("course", right[:, in_course]), ("honest", right))
        },
    )
    assert report.beside_ours("fgsm_defense", run, SUITE) == {
        "FGSM defence, clean": {
            "report": "92%",
            "ours": "100.0%",
            "all images": "92.0% [91.5%, 92.5%]",
            "agrees": "no",
        },
        "FGSM defence, FGSM": {
            "report": "60.24%",
            "ours": "60.2%",
            "all images": "15.1% [14.4%, 15.8%]",
            "agrees": "yes",
        },
    }


def test_a_count_of_images_has_its_own_interval():
    fgsm, exact = report.interval("q2.pretrained.fgsm"), stats.proportion(1004, 2500)
    assert fgsm == exact


def test_whole_per_cent_were_cut_off_and_stand_for_all_up_to_the_next():
    clean = report.interval("q2.pretrained.clean")
    ends = stats.proportion(2325, 2500).low, stats.proportion(2349, 2500).high
    assert (clean.low, clean.high) == ends


def test_a_validation_accuracy_is_of_the_images_that_there_are():
    best = report.interval("q2.fgsm_defense.best_val")
    assert best == stats.proportion(6837, 7500)
    assert best.value == pytest.approx(0.9053 * 7552 / 7500, abs=1e-4)


def test_digits_alone_leave_half_of_the_last_one_open():
    bpd = report.interval("q1.8.test_bpd")
    assert (bpd.low, bpd.value, bpd.high) == pytest.approx((0.555, 0.56, 0.565))


def test_every_number_that_is_compared_has_an_interval():
    for name in report.evidence():
        found = report.interval(name)
        assert found.low < found.value < found.high, name


@pytest.mark.parametrize(
    ("name", "printed", "label"),
    [
        ("q1.8.test_bpd", "0.56", "VAE, test"),
        ("q2.pretrained.clean", "93%", "pretrained, clean"),
        ("q2.scratch.fgsm", "13.76%", "from scratch, FGSM"),
        ("q2.pgd_defense.best_val", "85.82%", "PGD defence, best validation"),
    ],
)
def test_a_number_has_the_reports_digits_and_a_short_name(name, printed, label):
    assert report.printed(name) == printed
    assert report.label(name) == label


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The file of the report's numbers, where a test may change it."""
    path = tmp_path / "report.json"
    path.write_text((PUBLISHED / "report.json").read_text())
    monkeypatch.setattr(report, "PUBLISHED", tmp_path)
    report._numbers.cache_clear()
    yield path
    report._numbers.cache_clear()


def test_an_altered_digit_is_noticed_wherever_it_is(copied):
    text = copied.read_text()
    places = [m.start() for m in re.finditer(r"[0-9]", text)]
    assert len(places) > 100
    for at in places:
        copied.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")
        with pytest.raises(ValueError, match=r"report\.json: "):
            report.value("q1.8.test_bpd")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"q1.8.test_bpd": {"value": 0.5}}', "\xff"])
def test_a_file_that_is_no_report_is_named(copied, text):
    copied.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"report\.json: "):
        report.value("q1.8.test_bpd")
