"""A run is found by its settings or computed; damage and staleness are noticed."""

import json
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
import pytest
from annotated_types import Gt
from pydantic import ValidationError

import hw3lib
from hw3lib import runs
from hw3lib.experiments.catalog import published
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.runs.settings import Outcome, RunError, Settings
from hw3lib.vae import bounds


class Square(Settings):
    """A run that costs nothing."""

    experiment: ClassVar[str] = "test_square"
    computed: ClassVar[list[float]] = []

    side: Annotated[float, Gt(0)] = 1.0
    seed: int = 0

    def compute(self, context):
        self.computed.append(self.side)
        return Outcome(
            {"area": self.side**2},
            arrays={"sides": np.full(4, self.side)},
            weights={"corner": np.ones((2, 2), np.float32)},
            data="none",
            device="cpu",
        )

    def canary(self):
        return [self.side**2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path))
    Square.computed.clear()
    return tmp_path


def test_a_run_is_computed_once_and_then_found():
    first, second = runs.run(Square(side=3)), runs.run(Square(side=3))
    assert Square.computed == [3.0]
    assert first.results == second.results == {"area": 9.0}
    np.testing.assert_array_equal(second.arrays["sides"], np.full(4, 3.0))
    np.testing.assert_array_equal(second.weights["corner"], np.ones((2, 2)))


class Checkpointed(Square):
    """A run that leaves a checkpoint behind, alone or for longer ones to go on from."""

    experiment: ClassVar[str] = "test_checkpointed"
    shared: bool = False

    @property
    def checkpoint_key(self):
        return "shared" if self.shared else self.key

    def compute(self, context):
        context.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        context.checkpoint.write_text("state")
        return super().compute(context)


@pytest.mark.parametrize("shared", [False, True])
def test_a_checkpoint_outlives_its_run_only_where_a_longer_one_may_go_on(shared):
    settings = Checkpointed(shared=shared)
    runs.run(settings)
    assert runs.checkpoint_path(settings, settings.canary()).exists() == shared


def test_runs_within_tuples_describe_themselves():
    class Pair(Square):
        experiment: ClassVar[str] = "test_pair"
        parts: tuple[Square, ...] = ()

    assert Pair(parts=(Square(side=2), Square())).describe() == (
        "test_pair(parts=(test_square(side=2.0), test_square()))"
    )


def test_a_key_names_the_settings_and_nothing_else():
    assert Square(side=2).key == Square(side=2.0, seed=0).key
    keys = {Square(side=s, seed=n).key for s in (1, 2) for n in (0, 1)}
    assert len(keys) == 4
    assert Square().describe() == "test_square()"
    assert Square(side=2).describe() == "test_square(side=2.0)"


class Coloured(Square):
    """A run that got a setting, and one within, after others had been stored."""

    experiment: ClassVar[str] = "test_coloured"
    added_later: ClassVar[tuple[str, ...]] = ("colour", "within")

    colour: str = "white"
    within: "Coloured | None" = None


def test_a_setting_that_came_later_leaves_the_keys_of_older_runs_alone():
    def written(settings):
        return json.loads(settings.canonical())["settings"]

    plain = {"side": 2.0, "seed": 0}
    assert written(Coloured(side=2)) == plain
    assert written(Coloured(side=2, colour="red")) == plain | {"colour": "red"}
    assert written(Coloured(side=2, within=Coloured(side=2))) == plain | {"within": plain}
    assert Coloured(**Coloured(colour="red").model_dump(mode="json")).colour == "red"


def test_settings_are_frozen_and_validated():
    with pytest.raises(ValidationError):
        Square(side=-1)
    with pytest.raises(ValidationError):
        Square(sied=1)
    with pytest.raises(ValidationError):
        Square(side=float("nan"))
    with pytest.raises(ValidationError):
        Square().changed(side=0)
    with pytest.raises(ValidationError):
        Square().side = 2


def test_provenance_says_where_a_result_comes_from():
    made = runs.run(Square()).provenance
    assert {"version", "commit", "data", "device", "python", "torch", "seconds", "finished"} == set(
        made
    )


def test_the_source_of_several_runs_is_one_line():
    first = runs.run(Square())
    second = replace(
        first, settings=Square(seed=3), provenance=first.provenance | {"device": "gpu"}
    )
    line = runs.source(first, second, first)
    assert line == (
        f"Runs {first.key[:8]}, {second.key[:8]} · seeds 0, 3 · {first.provenance['device']}; gpu"
        f" · hw3lib {hw3lib.__version__}"
    )
    assert runs.source() == f"Computed on this page · hw3lib {hw3lib.__version__}"


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "json"])
def test_damage_is_noticed_and_the_run_computed_again(cache, suffix):
    stored = runs.run(Square())
    path = stored.path.with_suffix(f".{suffix}")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=stored.key):
        runs.read(stored.path)
    assert runs.find(Square()) is None
    assert runs.run(Square()).results == {"area": 1.0}
    assert Square.computed == [1.0, 1.0]


def test_altered_settings_are_noticed(cache):
    stored = runs.run(Square())
    content = json.loads(stored.path.read_text())
    content["settings"]["side"] = 5.0
    stored.path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="renamed or altered"):
        runs.read(stored.path)


def test_weights_are_recomputed_where_they_did_not_ship(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("hw3lib.runs.store.PUBLISHED", tmp_path / "published")
    runs.run(Square())
    light = runs.publish(Square(), weights=False)
    for path in (cache / "test_square").iterdir():
        path.unlink()
    assert light.published
    assert not light.has_weights
    with pytest.raises(RunError, match="without weights"):
        _ = light.weights
    assert runs.find(Square()) == light
    assert runs.run(Square(), weights=True).has_weights
    assert Square.computed == [1.0, 1.0]


def test_only_what_was_computed_can_be_published():
    with pytest.raises(RunError, match="compute it first"):
        runs.publish(Square(side=7), weights=False)


def test_a_canary_that_changed_makes_a_run_stale(monkeypatch):
    stored = runs.run(Square(side=2))
    assert stored.verify() == 0
    monkeypatch.setattr(Square, "canary", lambda self: [self.side**2 * 1.01])
    with pytest.raises(RunError, match="stale"):
        stored.verify()
    monkeypatch.setattr(Square, "canary", lambda self: [float("nan")])
    with pytest.raises(RunError, match="stale"):
        stored.verify()


@pytest.fixture(scope="module")
def published_sweep_run():
    """The shipped run with the strongest KL weight."""
    sweep = [e.settings for e in published() if getattr(e.settings, "beta", 1.0) != 1.0]
    stored = runs.find(max(sweep, key=lambda settings: settings.beta))
    assert stored is not None
    assert stored.published
    return stored


FAULTS = {
    "beta ignored": lambda terms, beta=1.0: (terms.nll + terms.kl.sum(1)).mean(),
    "KL's sign flipped": lambda terms, beta=1.0: (terms.nll - beta * terms.kl.sum(1)).mean(),
    "pixels averaged": lambda terms, beta=1.0: (terms.nll / 784 + beta * terms.kl.sum(1)).mean(),
}


def test_the_canary_of_a_published_run_passes(published_sweep_run):
    published_sweep_run.verify()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_canary_of_a_published_run_sees_a_planted_fault(
    published_sweep_run, fault, monkeypatch
):
    monkeypatch.setattr(bounds.ElboTerms, "loss", FAULTS[fault])
    with pytest.raises(RunError, match="stale"):
        published_sweep_run.verify()


SHIPPED = list(published())


def test_every_published_run_is_shipped():
    for entry in SHIPPED:
        stored = runs.find(entry.settings, weights=entry.weights)
        assert stored is not None, f"{entry.settings.describe()} is not shipped"
        assert stored.published


EXPERIMENTS = sorted({entry.settings.experiment for entry in SHIPPED})


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("which", ["distinct", pytest.param("all", marks=pytest.mark.long)])
def test_every_published_run_is_fresh(experiment, which):
    """Many canaries are the same, such as those of one study on networks that differ in epochs."""
    stored = [runs.find(e.settings) for e in SHIPPED if e.settings.experiment == experiment]
    stored = [run for run in stored if run]
    distinct = {tuple(run.canary): run for run in stored}
    for run in stored if which == "all" else distinct.values():
        run.verify()


def test_training_settings_survive_json():
    settings = TrainVAE(dataset="digits", beta=0.5)
    assert TrainVAE(**json.loads(settings.model_dump_json())) == settings


def test_a_checkpoint_is_not_shared_by_code_that_computes_something_else():
    settings = TrainVAE(dataset="digits", epochs=3)
    canary = settings.canary()
    path = runs.checkpoint_path(settings, canary)
    assert runs.checkpoint_path(settings.changed(epochs=5), canary) == path
    assert runs.checkpoint_path(settings.changed(seed=1), canary) != path
    assert runs.checkpoint_path(settings, [1.0, *canary[1:]]) != path


def test_seeds_to_compare_are_the_one_asked_for_and_those_that_are_published(cache, monkeypatch):
    monkeypatch.setattr("hw3lib.runs.store.PUBLISHED", cache / "published")
    for seed in (1, 2):
        runs.run(Square(seed=seed))
    runs.publish(Square(seed=2), weights=False)
    found = runs.published_seeds(Square(seed=3), seeds=range(5))
    assert [run.settings.seed for run in found] == [3, 2]
    assert [run.settings.seed for run in runs.published_seeds(Square(seed=2))] == [2]
