import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from hw3lib import runs
from hw3lib.book import claims, evidence, report
from hw3lib.book.claims import Claim
from hw3lib.stats import Interval
from tests.book.notebooks import BOOK, QUESTIONS

LEDGER = BOOK / "claims.yml"
FIELDS = {"question": "1.8", "source": "book", "claim": "It is.", "figure": "f", "evidence": "x"}


def claim(**changes):
    return Claim(**FIELDS | {"above": 0.0} | changes)


def test_an_interval_decides_and_one_across_an_end_does_not():
    assert claims.decide(Interval(2, 1, 3, 9), 0, np.inf) == "holds"
    assert claims.decide(Interval(-2, -3, -1, 9), 0, np.inf) == "fails"
    assert claims.decide(Interval(1, -1, 3, 9), 0, np.inf) == "undecided"
    assert claims.decide(Interval(5, 4, 6, 9), 0, 3) == "fails"
    assert claims.decide(Interval(2, -1, 4, 9), 0, 3) == "undecided"


def test_a_single_number_is_taken_as_exact():
    assert claims.decide(Interval(0.1, np.nan, np.nan, 1), 0, 1) == "holds"
    assert claims.decide(Interval(1.0, np.nan, np.nan, 1), 0, 1) == "fails"


@pytest.mark.parametrize(
    "wrong",
    [
        {"evidence": ""},
        {"evidence": "x ="},
        {"above": None},
        {"above": 1.0, "below": 1.0},
        {"above": float("nan")},
        {"verdict": "holds"},
        {"question": "3.1"},
        {"source": "somebody"},
    ],
    ids=str,
)
def test_a_claim_without_evidence_or_ends_or_with_a_typed_verdict_is_refused(wrong):
    with pytest.raises(ValidationError):
        claim(**wrong)


def test_names_that_an_expression_binds_itself_need_no_evidence():
    assert claims.free_names("np.max([f(run) for run in sweep])") == {"np", "f", "sweep"}


def test_several_seeds_give_the_interval_over_seeds():
    values = {"x": np.array([1.0, 3.0])}, {"x": Interval(4.0, 3.0, 5.0, 10)}
    judged = claims.judge(claim(), [names.__getitem__ for names in values])
    assert judged.seeds == 2
    assert (judged.quantity.value, judged.quantity.n) == (3.0, 2)


def test_one_seed_gives_the_interval_over_what_was_measured():
    judged = claims.judge(claim(), [{"x": np.array([1.0, 2.0, 3.0])}.__getitem__])
    assert (judged.seeds, judged.quantity.n, judged.verdict) == (1, 3, "undecided")
    assert claims.judge(claim(), [{"x": 2.0}.__getitem__]).verdict == "holds"


def test_no_run_and_no_number_are_errors():
    with pytest.raises(ValueError, match="not stored"):
        claims.judge(claim(), [])
    with pytest.raises(ValueError, match="nan"):
        claims.judge(claim(), [{"x": np.nan}.__getitem__])


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="names vea: no run or function"):
        evidence.judge(claim(evidence='vea.results["test"]["bpd"]'))


def test_a_curve_is_read_at_a_radius_that_it_has():
    right = np.zeros((2, 3, 4), dtype=bool)
    right[1, 2] = [True, False, True, True]
    curves = SimpleNamespace(
        settings=SimpleNamespace(eps_values=(0.0, 1 / 255, 4 / 255)),
        results={"attacks": ["fgsm", "pgd"]},
        arrays={"right": right},
    )
    assert evidence.at_radius(curves, "pgd", 4).tolist() == [1, 0, 1, 1]
    assert not evidence.at_radius(curves, "fgsm", 4).any()
    with pytest.raises(ValueError, match="not in tuple"):
        evidence.at_radius(curves, "pgd", 3)


def test_runs_without_a_seed_count_once():
    judged = evidence.judge(claim(evidence='facts.results["bpd"]["uniform"]'))
    assert judged.seeds == 1
    assert judged.quantity.value == pytest.approx(4)


@pytest.fixture(scope="module")
def judged():
    return evidence.ledger(LEDGER)


def test_every_claim_of_the_ledger_is_judged(judged):
    assert len(judged) >= 45
    assert len({j.claim.claim for j in judged}) == len(judged)
    assert {j.verdict for j in judged} <= {"holds", "fails", "undecided"}
    assert {j.claim.source for j in judged} == {"report", "book"}


def test_every_claim_points_to_a_figure_of_its_part(judged):
    labels = {path.stem: path.read_text() for path in QUESTIONS}
    for j in judged:
        part = f"q{j.claim.question[0]}_"
        named = f'"name": "{j.claim.figure}"'
        assert any(named in text for stem, text in labels.items() if stem.startswith(part)), named


def test_the_text_of_a_claim_survives_a_table(judged):
    rows = claims.as_table(judged).splitlines()
    assert len(rows) == len(judged) + 2
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}


def test_the_reports_numbers_are_compared_with_the_published_runs():
    compared = {one.name: one for one in evidence.comparisons()}
    assert compared.keys() == report.evidence().keys()
    assert len(compared) >= 19  # four of question 1.8, fifteen of table 1
    test = compared["q1.8.test_bpd"]
    vae = evidence.lookup("vae", 0)
    assert test.used[0] == vae
    if test.seeds == 1:
        assert test.ours.value == vae.results["test"]["bpd"]


def test_a_number_outside_the_interval_is_marked(monkeypatch):
    monkeypatch.setattr(report, "value", {"in": 0.5, "out": 0.7}.__getitem__)
    ours = Interval(0.55, 0.45, 0.65, 3)
    assert evidence.Comparison("out", ours, 3).outside
    assert not evidence.Comparison("in", ours, 3).outside
    assert evidence.Comparison("in", Interval(0.55, np.nan, np.nan, 1), 1).outside is None
    assert evidence.Comparison("in").outside is None


def test_a_false_number_in_a_stored_run_flips_a_verdict(judged, tmp_path, monkeypatch):
    """The training of 1.8, with its test loss raised by a tenth."""
    published = tmp_path / "published"
    shutil.copytree(runs.PUBLISHED, published)
    monkeypatch.setattr("hw3lib.runs.store.PUBLISHED", published)
    path = published / "vae_training" / f"{evidence.named(0)['vae'].key}.json"
    content = json.loads(path.read_text())
    content["results"]["test"]["bpd"] *= 1.1
    path.write_text(json.dumps(content))
    evidence._published.cache_clear()
    try:
        planted = [evidence.judge(j.claim) for j in judged if j.claim.question == "1.8"]
    finally:
        evidence._published.cache_clear()
    before = {j.claim.claim: j.verdict for j in judged}
    flipped = [j.claim.claim for j in planted if j.verdict != before[j.claim.claim]]
    assert any("at most 0.525" in text for text in flipped)
