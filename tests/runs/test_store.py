"""A run is found by its settings or computed; damage and staleness are noticed."""

import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import platformdirs
import pytest
import torch
from annotated_types import Gt
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

import hw3lib
from hw3lib import files, runs
from hw3lib.experiments.catalog import published
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.robust import PGD, AdversarialLoss
from hw3lib.runs import provenance
from hw3lib.runs.settings import Outcome, OutOfTime, RunError, Settings
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
        "test_pair(parts=(test_square(side=2), test_square()))"
    )


def test_a_run_within_a_run_within_a_run_is_named_by_its_key():
    training = Settings.named("resnet_training")
    first = training(epochs=2, keep="last")
    second = training(start=first, defense=AdversarialLoss(PGD((0.1 + 0.2, 0.2, 0.3), steps=7)))
    third = Settings.named("under_attack")(model=second)
    attack = "PGD(eps=(0.3, 0.2, 0.3), steps=7)"
    assert third.describe() == (
        f"under_attack(model=resnet_training(start=resnet_training {first.key[:8]}, "
        f"defense=AdversarialLoss(attack={attack})))"
    )
    assert first.describe() in second.describe()


def test_a_key_names_the_settings_and_nothing_else():
    assert Square(side=2).key == Square(side=2.0, seed=0).key
    keys = {Square(side=s, seed=n).key for s in (1, 2) for n in (0, 1)}
    assert len(keys) == 4
    assert Square().describe() == "test_square()"
    assert Square(side=2).describe() == "test_square(side=2)"


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


class Several(Square):
    """Settings of many numbers."""

    experiment: ClassVar[str] = "test_several"
    sides: tuple[Annotated[int, Gt(0)], ...] = ()
    maybe: float | None = None
    flags: tuple[bool, ...] = ()
    corner: tuple[float, ...] = ()


@pytest.mark.parametrize(
    "odd", [{"sides": (True, 5)}, {"sides": [2, False]}, {"maybe": True}, {"corner": (1.0, True)}]
)
def test_yes_and_no_are_no_numbers_within_others(odd):
    with pytest.raises(ValidationError, match="should be a number"):
        Several(**odd)
    assert Several(flags=(True, False)).flags == (True, False)


def test_zero_has_one_key_whatever_its_sign():
    one, other = Several(maybe=0.0, corner=(0.0, 1.0)), Several(maybe=-0.0, corner=(-0.0, 1.0))
    assert one == other
    assert one.key == other.key
    assert TrainVAE(beta=-0.0).key == TrainVAE(beta=0.0).key


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


def test_an_installed_package_has_no_commit_of_the_repository_around_it(tmp_path, monkeypatch):
    package = tmp_path / "venv" / "site-packages" / "hw3lib" / "__init__.py"
    package.parent.mkdir(parents=True)
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True)
    monkeypatch.setattr("hw3lib.__file__", str(package))
    monkeypatch.setattr(provenance, "__file__", str(package.parent / "runs" / "provenance.py"))
    package.with_name("runs").mkdir()
    assert provenance.commit.__wrapped__() == "released"
    monkeypatch.setattr("hw3lib.__file__", str(tmp_path / "hw3lib" / "__init__.py"))
    assert re.fullmatch("[0-9a-f]{12}", provenance.commit.__wrapped__().removesuffix("-dirty"))


def test_a_run_names_the_commit_that_began_it(monkeypatch):
    """A training takes hours, in which its checkout moves on."""
    monkeypatch.setattr("hw3lib.runs.store.commit", lambda: "later" if Square.computed else "first")
    assert runs.run(Square()).provenance["commit"] == "first"


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


@pytest.mark.parametrize(
    "alter",
    [
        lambda content: content["settings"].update(side=5.0),
        lambda content: content["results"].update(area=2.0),
        lambda content: content["results"].update(perimeter=4.0),
        lambda content: content.update(canary=[2.0]),
        lambda content: content["provenance"].update(seconds=99.0),
        lambda content: content.update(sha256={}),
        lambda content: content.update(digest="0" * 64),
    ],
)
def test_an_altered_content_is_noticed(alter):
    stored = runs.run(Square())
    content = json.loads(stored.path.read_text())
    alter(content)
    stored.path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="was altered since it was stored"):
        runs.read(stored.path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, np.arange(2)])
def test_a_result_that_no_file_can_hold_is_named(monkeypatch, value):
    found = {"side": 1, "areas": [{"square": 1.0, "circle": value}]}
    monkeypatch.setattr(Square, "compute", lambda self, context: Outcome(found))
    message = r"test_square\(\) gave what no JSON file holds: results.areas\[0\].circle is "
    with pytest.raises(RunError, match=message):
        runs.run(Square())
    assert runs.find(Square()) is None


def test_a_key_that_no_file_can_hold_is_told(monkeypatch):
    monkeypatch.setattr(Square, "compute", lambda self, context: Outcome({(1, 2): 3}))
    with pytest.raises(RunError, match="gave what no JSON file holds: keys must be str"):
        runs.run(Square())


def test_numbers_of_numpy_and_torch_are_stored_as_numbers(monkeypatch):
    found = {
        "area": np.float32(0.5),
        "counts": (np.int64(3), torch.tensor(4), np.array(True)),
        "half": torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True),
    }
    monkeypatch.setattr(Square, "compute", lambda self, context: Outcome(found))
    assert runs.run(Square()).results == {"area": 0.5, "counts": [3, 4, True], "half": 0.5}


@pytest.mark.parametrize("returned", [None, {"area": 1.0}])
def test_a_computation_that_returns_no_outcome_is_told_what_to_return(monkeypatch, returned):
    monkeypatch.setattr(Square, "compute", lambda self, context: returned)
    with pytest.raises(TypeError, match=rf"returned {type(returned).__name__}; .*an `Outcome`"):
        runs.run(Square())


def test_a_renamed_file_and_one_without_a_digest_are_noticed(cache):
    stored = runs.run(Square())
    other = stored.path.with_stem("0" * 16)
    shutil.copy(stored.path, other)
    with pytest.raises(RunError, match=f"settings of {stored.key}; it was renamed"):
        runs.read(other)
    content = json.loads(stored.path.read_text())
    del content["digest"]
    stored.path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="has no digest"):
        runs.read(stored.path)


@pytest.mark.parametrize(
    "text",
    ["[]", "1", "null", '"text"', "{}", '{"digest": 1}', "[" * 10_000, "\ud800", '{"a": NaN}'],
    ids=lambda text: text[:8],
)
def test_another_kind_of_file_is_no_run(cache, text):
    path = cache / "test_square" / f"{Square().key}.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RunError, match=path.name):
        runs.read(path)
    assert list(runs.stored_runs(cache)) == []


PAPERS = sorted(runs.PUBLISHED.glob("*/*.json"))


def content_of(text):
    """What a file holds, or None where it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


@pytest.mark.parametrize("num", [10, pytest.param(228, marks=pytest.mark.long)])
def test_no_changed_byte_of_a_published_result_is_read_as_another_content(tmp_path, num):
    """Each of a hundred random changes is refused, or changes no number (spaces, a 17th digit)."""
    rng = random.Random(num)
    for path in rng.sample(PAPERS, num):
        copy = tmp_path / path.parent.name / path.name
        copy.parent.mkdir(exist_ok=True)
        whole = path.read_bytes()
        before = content_of(whole)
        for suffix in before["sha256"]:
            shutil.copy(path.with_suffix(f".{suffix}"), copy.parent)
        for _ in range(100):
            changed = bytearray(whole)
            changed[rng.randrange(len(whole))] = rng.choice(
                [*b'0123456789.-e \n"', rng.randrange(256)]
            )
            copy.write_bytes(changed)
            if content_of(changed) == before:
                continue
            with pytest.raises(RunError, match=path.stem):
                runs.read(copy)


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
            max_leaves=6,
        ),
    )
)
@examples(max_examples=50)
def test_a_digest_depends_on_the_content_alone(results):
    text = files.sealed({"results": results, "canary": (1.0, 2.0)})
    content = json.loads(text)
    digest = content.pop("digest")
    assert content == {"results": results, "canary": [1.0, 2.0]}
    assert json.loads(files.sealed(dict(reversed(content.items()))))["digest"] == digest
    assert json.loads(files.sealed(content | {"canary": [1.0, 2.5]}))["digest"] != digest


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


def test_weights_of_what_has_none_are_asked_for_in_vain_and_nothing_is_computed_again(monkeypatch):
    class Weightless(Square):
        experiment: ClassVar[str] = "test_weightless"

        def compute(self, context):
            return replace(super().compute(context), weights={})

    for _ in range(2):
        with pytest.raises(RunError, match=r"test_weightless\(\) has no weights"):
            runs.run(Weightless(), weights=True)
    assert Square.computed == [1.0]
    assert runs.run(Weightless()).results == {"area": 1.0}
    del Settings.registry["test_weightless"]


def test_only_what_was_computed_can_be_published():
    with pytest.raises(RunError, match="compute it first"):
        runs.publish(Square(side=7), weights=False)


def test_what_was_altered_in_the_cache_is_not_published(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("hw3lib.runs.store.PUBLISHED", tmp_path / "published")
    stored = runs.run(Square())
    stored.path.write_text(stored.path.read_text().replace('"area": 1.0', '"area": 9.0'))
    with pytest.raises(RunError, match="altered"):
        runs.publish(Square(), weights=True)
    assert not (tmp_path / "published").exists()


def test_weights_that_a_run_does_not_name_are_not_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("hw3lib.runs.store.PUBLISHED", tmp_path / "published")
    runs.run(Square())
    weights = runs.publish(Square(), weights=True).path.with_suffix(".safetensors")
    content = weights.read_bytes()
    light = runs.publish(Square(), weights=False)
    assert not weights.exists()  # it would ship for nothing
    weights.write_bytes(content)
    assert not runs.read(light.path).has_weights


def test_stored_runs_are_read_where_nothing_has_imported_their_experiments():
    code = "from hw3lib import runs; print(sum(1 for _ in runs.stored_runs(runs.PUBLISHED)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (int(done.stdout), done.stderr) == (len(list(runs.stored_files(runs.PUBLISHED))), "")


def test_runs_of_experiments_that_are_not_installed_are_told_in_one_line(cache, caplog):
    for side in (1, 2):
        path = runs.run(Square(side=side)).path
        for name in ("cube", "ball"):
            copy = cache / name / path.name
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(files.sealed(files.unsealed(path) | {"experiment": name}))
    assert {run.settings for run in runs.stored_runs(cache)} == {Square(side=1), Square(side=2)}
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "4 runs of experiments that are not installed (ball, cube): see"
    )


def test_a_run_is_read_from_a_path_that_is_a_text():
    stored = runs.run(Square())
    assert runs.read(str(stored.path)) == stored


def test_a_run_of_an_unknown_experiment_says_which_there_are(tmp_path):
    content = files.unsealed(runs.run(Square()).path) | {"experiment": "cube"}
    (tmp_path / "cube.json").write_text(files.sealed(content))
    with pytest.raises(RunError, match=r"no experiment 'cube'; there are .*vae_training"):
        runs.read(tmp_path / "cube.json")


def test_a_damaged_published_run_is_said_and_the_cached_one_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hw3lib.runs.store.PUBLISHED", tmp_path / "published")
    runs.run(Square())
    runs.publish(Square(), weights=False).path.write_text("{")
    assert runs.find(Square()).path.is_relative_to(runs.cache_dir())
    assert "is not a readable run" in caplog.text


def test_a_canary_of_another_length_makes_a_run_stale(monkeypatch):
    stored = runs.run(Square())
    monkeypatch.setattr(Square, "canary", lambda self: [1.0, 2.0])
    with pytest.raises(RunError, match=r"test_square\(\) is stale: its canary has another length"):
        stored.verify()


def test_a_canary_that_changed_makes_a_run_stale(monkeypatch):
    stored = runs.run(Square(side=2))
    assert stored.verify() == 0
    monkeypatch.setattr(Square, "canary", lambda self: [self.side**2 * 1.01])
    with pytest.raises(RunError, match="stale"):
        stored.verify()
    monkeypatch.setattr(Square, "canary", lambda self: [float("nan")])
    with pytest.raises(RunError, match="stale"):
        stored.verify()


def test_a_stale_run_says_what_computes_it_again_also_where_it_does_not_ship(monkeypatch):
    stored = runs.run(Square())
    monkeypatch.setattr(Square, "canary", lambda self: [2.0])
    message = r"`hw3 reproduce` if it ships, with `runs.compute\(settings\)` if not, or undo"
    with pytest.raises(RunError, match=message):
        stored.verify()
    monkeypatch.setattr(Square, "data_checksum", lambda self: "others")
    with pytest.raises(RunError, match=r"`runs.compute\(settings\)`"):
        stored.verify()


def test_other_data_make_a_run_stale(monkeypatch):
    stored = runs.run(Square(side=2))  # made from data called "none"
    for now, message in (("none", None), (None, None), ("others", "which are now others")):
        monkeypatch.setattr(Square, "data_checksum", lambda _self, now=now: now)
        if message is None:
            assert stored.verify() == 0
        else:
            with pytest.raises(RunError, match=message):
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
def test_the_published_runs_of_an_experiment_are_fresh(experiment):
    """Of equal canaries, such as those of trainings that differ in epochs, one is computed."""
    stored = [runs.find(e.settings) for e in SHIPPED if e.settings.experiment == experiment]
    for run in {tuple(run.canary): run for run in stored if run}.values():
        run.verify()


@pytest.mark.long
@pytest.mark.parametrize("settings", [e.settings for e in SHIPPED], ids=lambda one: one.key)
def test_every_published_run_is_fresh(settings):
    stored = runs.find(settings)
    assert stored is not None
    stored.verify()


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


# Kills, neighbours, and disks


def test_the_next_run_removes_what_a_killed_one_left_half_written(cache, caplog):
    settings = Square()
    checkpoint = runs.checkpoint_path(settings, settings.canary())
    folder = cache / settings.experiment
    for made in (folder, checkpoint.parent):
        made.mkdir(parents=True)
    other = Square(seed=1).key
    left = [
        folder / f".77.{settings.key}.npz",
        folder / f".78.{settings.key}.json",
        checkpoint.with_suffix(".77.part"),
        checkpoint.with_name(f".77.{checkpoint.name}"),
    ]
    others = [folder / f".77.{other}.npz", checkpoint.with_name("other-key.77.part")]
    for path in (*left, *others):
        path.write_bytes(b"half")
    assert list(runs.stored_runs(cache)) == []
    assert caplog.text == ""  # what is half-written is no run, and no fault
    runs.run(settings)
    assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in others)  # their runs may be at work


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_part(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(part):
        part.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, fail)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


class Slow(Square):
    """A run that takes as long as a file is not there."""

    experiment: ClassVar[str] = "test_slow"
    gate: str

    def compute(self, context):
        while not Path(self.gate).exists():
            time.sleep(0.01)
        return super().compute(context)


HOLDER = """
import sys, time
from pathlib import Path
from hw3lib.files import acquire
with acquire(Path(sys.argv[1]), "tests")[0]:
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_who_want_one_run_compute_it_once(cache, caplog):
    settings = Slow(gate=str(cache / "gate"))
    found = []
    both = [threading.Thread(target=lambda: found.append(runs.run(settings))) for _ in range(2)]
    for thread in both:
        thread.start()
    patience = time.monotonic() + 60
    while "waiting until it is done" not in caplog.text and time.monotonic() < patience:
        time.sleep(0.01)
    Path(settings.gate).touch()
    for thread in both:
        thread.join()
    assert Slow.computed == [1.0]
    assert found[0] == found[1]
    assert f"another process computes {settings.describe()}" in caplog.text


def test_a_held_run_is_waited_for_until_the_deadline_and_freed_by_a_kill(cache, caplog):
    settings = Square()
    lock = runs.checkpoint_path(settings, settings.canary()).with_suffix(".lock")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutOfTime, match=r"another process still computes test_square\(\)"):
            runs.compute(settings, deadline=time.monotonic() + 0.1)
        assert Square.computed == []
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    runs.compute(settings)
    assert Square.computed == [1.0]


@pytest.mark.timeout(60)
def test_a_deadline_that_is_over_waits_for_nobody(cache):
    """A lock with a negative time limit would be waited for without end."""
    settings = Square()
    path = runs.checkpoint_path(settings, settings.canary()).with_suffix(".lock")
    lock, _ = files.acquire(path, "is held here")
    with lock, pytest.raises(OutOfTime, match="another process still computes"):
        runs.compute(settings, deadline=time.monotonic() - 5)


def test_device_deadline_and_checkpoint_reach_the_computation(monkeypatch):
    contexts = []
    compute = Square.compute
    monkeypatch.setattr(
        Square, "compute", lambda self, context: contexts.append(context) or compute(self, context)
    )
    settings, deadline = Square(), time.monotonic() + 100
    runs.run(settings, device="mars", deadline=deadline)
    checkpoint = runs.checkpoint_path(settings, settings.canary())
    assert contexts == [runs.Context("mars", checkpoint, deadline)]


def test_only_experiments_are_found_by_their_names():
    class Base(Square):
        """What several experiments share is none itself."""

    class Other(Square):
        experiment: ClassVar[str] = "test_other"

    names = dict(Settings.registry)
    assert Base not in names.values()
    assert names["test_square"] is Square
    assert names["test_other"] is Other
    assert all(name == settings.experiment for name, settings in names.items())
    with pytest.raises(ValueError, match="Base has no `experiment` of its own"):
        Base()
    with pytest.raises(TypeError, match="has the name 'test_square', as Square of tests"):

        class Twin(Settings):
            experiment: ClassVar[str] = "test_square"

    assert Settings.registry["test_square"] is Square


def test_runs_on_the_way_take_the_device_and_the_deadline(monkeypatch):
    contexts = []

    class Outer(Square):
        experiment: ClassVar[str] = "test_outer"

        def compute(self, context):
            contexts.append(context)
            runs.run(Square(side=5.0))
            return super().compute(context)

    monkeypatch.setattr(Square, "compute", lambda self, context: contexts.append(context) or 1 / 0)
    deadline = time.monotonic() + 100
    with pytest.raises(ZeroDivisionError):
        runs.run(Outer(), device="mars", deadline=deadline)
    with pytest.raises(ZeroDivisionError):
        runs.run(Square(side=5.0))
    assert [(one.device, one.deadline) for one in contexts] == [
        *[("mars", deadline)] * 2,
        (None, None),
    ]
    del Settings.registry["test_outer"]


def test_the_cache_is_a_folder_of_runs_in_that_of_the_user(monkeypatch):
    monkeypatch.delenv("HW3_CACHE")
    assert runs.cache_dir() == platformdirs.user_cache_path("hw3lib") / "runs"


def test_a_cache_in_a_path_with_spaces_and_letters(tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path / "my cäche" / "of runs"))
    runs.run(Square())
    assert runs.find(Square()).arrays["sides"].shape == (4,)


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    """A file where the folder should be refuses every user, root too."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HW3_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunError, match=r"cannot be written .*set HW3_CACHE to a folder"):
        runs.run(Square())
    assert Square.computed == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_read_only_cache_is_told_before_anything_is_computed(cache):
    cache.chmod(0o500)
    with pytest.raises(RunError, match=r"Permission denied.*set HW3_CACHE to a folder"):
        runs.run(Square())
    assert Square.computed == []


def test_a_full_disk_names_no_checkpoint_that_is_not_there(monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hw3lib.runs.store.save_file", full)
    with pytest.raises(RunError, match=r"cannot be written \(.*No space left.*\)\. Make room"):
        runs.run(Square())


@pytest.mark.parametrize("writer", ["np.savez_compressed", "save_file"])
def test_a_full_disk_is_told_and_what_is_done_is_kept(monkeypatch, writer):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    settings = Checkpointed()
    checkpoint = runs.checkpoint_path(settings, settings.canary())
    with monkeypatch.context() as patch:
        patch.setattr(f"hw3lib.runs.store.{writer}", full)
        with pytest.raises(RunError, match=r"No space left.*is kept in .*\.pt\. Make room"):
            runs.run(settings)
    assert checkpoint.exists()
    assert runs.find(settings) is None
    assert runs.run(settings).results == {"area": 1.0}


def test_without_a_home_it_is_said_where_to_put_the_cache(monkeypatch):
    monkeypatch.delenv("HW3_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("~/.cache") / name)
    with pytest.raises(OSError, match="no home directory; set HW3_CACHE to a folder"):
        runs.cache_dir()
    monkeypatch.setenv("HW3_CACHE", "~/runs")
    monkeypatch.setenv("HOME", "/elsewhere")
    assert runs.cache_dir() == Path("/elsewhere/runs")


WRITER = """
import itertools, time
from typing import ClassVar
import numpy as np
from hw3lib import runs

class Stamped(runs.Settings):
    experiment: ClassVar[str] = "test_stamped"
    seed: int

    def compute(self, context):
        now = float(time.time_ns())
        return runs.Outcome({"now": now}, arrays={"now": np.full(10_000, now)})

    def canary(self):
        return []

if __name__ == "__main__":
    print("begins", flush=True)
    for seed in itertools.cycle(range(3)):
        runs.compute(Stamped(seed=seed))
"""


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.long)])
def test_a_kill_while_writing_leaves_a_whole_run_or_one_that_is_refused(tmp_path, kills):
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    scope = {"__name__": "writer"}
    exec(compile(WRITER, "writer", "exec"), scope)
    rng = random.Random(kills)
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        for run in runs.stored_runs(runs.cache_dir()):
            assert (run.arrays["now"] == run.results["now"]).all()
    for seed in range(3):
        runs.compute(scope["Stamped"](seed=seed))
    assert len(list(runs.stored_runs(runs.cache_dir()))) == 3
    assert not list(runs.cache_dir().glob("*/.*"))
