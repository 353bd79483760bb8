"""The command line finds, computes, shows and verifies runs; errors are one line."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hw3lib import cli, data, files, runs
from hw3lib.experiments import catalog as plan
from hw3lib.experiments.part1.marginal_likelihood import PosteriorGrid
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.robust.defenses import Standard
from hw3lib.runs import store

TINY = TrainVAE(dataset="digits", latent_dim=2, num_filters=2, epochs=1)
WORDS = ["dataset=digits", "latent_dim=2", "num_filters=2", "epochs=1"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(store, "PUBLISHED", tmp_path / "published")
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(cli.app, words)


def content_of(path):
    content = json.loads(path.read_text())
    del content["digest"]
    return content


def test_a_run_is_computed_listed_shown_and_verified():
    assert invoke("run", "vae_training", *WORDS).exit_code == 0
    listed = invoke("runs", "list").output
    assert TINY.key in listed
    assert "cache" in listed
    lines = [line.split("\t") for line in listed.splitlines()]  # to a pipe, whole
    assert [TINY.key, TINY.describe()] in [line[:2] for line in lines]
    assert {len(line) for line in lines} == {6}
    shown = invoke("runs", "show", TINY.key[:6]).output
    assert "num_parameters" in shown
    assert "finished" in shown
    verified = invoke("runs", "verify")
    assert verified.exit_code == 0
    assert verified.output.startswith(f"ok     {TINY.key}")


def test_settings_within_settings_are_written_as_yaml():
    words = ["learning_rate=1e-3", "defense={kind: standard, label_smoothing: 0.1}"]
    parsed = cli._parse("resnet_training", words)
    assert parsed == TrainResNet(learning_rate=1e-3, defense=Standard(label_smoothing=0.1))


@pytest.mark.parametrize("word", ["defense={kind: standard", "epochs"])
def test_a_word_that_is_not_an_assignment_is_refused_by_name(word):
    with pytest.raises(ValueError, match="^" + re.escape(repr(word))):
        cli._parse("resnet_training", [word])


def test_a_stale_run_fails_verification_and_is_named():
    stored = runs.run(TINY)
    content = content_of(stored.path)
    content["canary"][0] *= 1.01
    stored.path.write_text(files.sealed(content))
    answer = invoke("runs", "verify", TINY.key)
    assert answer.exit_code == 1
    assert f"STALE  {TINY.key}" in answer.output


def test_a_run_whose_experiment_is_not_installed_cannot_be_verified(cache):
    stored = runs.run(TINY)
    path = cache / "cache" / "cube" / stored.path.name
    path.parent.mkdir()
    path.write_text(files.sealed(content_of(stored.path) | {"experiment": "cube"}))
    stored.path.unlink()
    answer = invoke("runs", "verify")
    assert answer.exit_code == 1
    assert answer.stdout == f"OTHER  {TINY.key}  cube is not installed\n"


def test_an_altered_run_fails_verification_and_is_shown_to_nobody():
    stored = runs.run(TINY)
    stored.path.write_text(stored.path.read_text().replace('"epoch": 1', '"epoch": 2'))
    answer = invoke("runs", "verify")
    assert answer.exit_code == 1
    assert answer.stdout.startswith(f"BROKEN {TINY.key}")
    assert "was altered since it was stored" in answer.stdout
    shown = invoke("runs", "show", TINY.key)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "was altered since it was stored" in shown.stderr


def test_reproduce_computes_what_is_missing_and_publishes_what_is_fresh(monkeypatch):
    entries = [plan.Published(TINY, weights=True), plan.Published(TINY.changed(seed=1))]
    monkeypatch.setattr(plan, "published", lambda seeds: entries)
    first = invoke("reproduce", "--publish")
    assert first.exit_code == 0, first.output
    assert first.output.count("computed in") == 2
    assert runs.find(TINY).published
    assert runs.find(TINY).has_weights
    assert not runs.find(TINY.changed(seed=1)).has_weights
    assert invoke("reproduce").output.count("stored") == 2

    path = runs.find(TINY).path
    content = content_of(path)
    content["canary"][0] *= 1.01
    path.write_text(files.sealed(content))
    again = invoke("reproduce", "--publish")
    assert again.output.count("stored, published") == 1  # the fresh copy in the cache
    assert runs.find(TINY).verify() == 0


def test_a_stale_published_run_is_computed_once_and_then_found_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "published", lambda seeds: [plan.Published(TINY)])
    monkeypatch.setattr(store, "PUBLISHED", tmp_path / "published")
    invoke("reproduce", "--publish")
    path = runs.find(TINY).path
    content = content_of(path)
    content["canary"][0] *= 1.01
    path.write_text(files.sealed(content))
    store._path(runs.cache_dir(), TINY).unlink()
    assert "computed in" in invoke("reproduce").output
    assert "stored" in invoke("reproduce").output


def test_the_plan_says_what_is_left_and_how_long_it_takes(monkeypatch):
    longer = TINY.changed(epochs=10, seed=1)
    other = PosteriorGrid(vae=TINY)
    entries = [plan.Published(one) for one in (TINY, longer, other)]
    monkeypatch.setattr(plan, "published", lambda seeds: entries)
    first = invoke("reproduce", "--plan").output
    assert "3 are left" in first
    assert "unknown" in first
    seconds = runs.run(TINY).provenance["seconds"]
    after = invoke("reproduce", "--plan").output
    assert f"{longer.key}  {longer.describe()}: {10 * seconds:,.0f} s" in after
    assert TINY.key not in after
    assert "1 of 3 runs are stored, 2 are left" in after
    assert "1 runs of unknown length" in after
    assert not runs.find(longer)


def test_reproduce_stops_before_its_time_is_up_and_goes_on_later(monkeypatch):
    long = TINY.changed(epochs=3)
    monkeypatch.setattr(plan, "published", lambda seeds: [plan.Published(long)])
    stopped = invoke("reproduce", "--time-budget", str(cli.RESERVE_SECONDS + 0.01))
    assert stopped.exit_code == 3
    assert "1 of 1 runs are left" in stopped.output
    assert invoke("reproduce").exit_code == 0
    assert len(runs.find(long).results["history"]) == 4


def test_canaries_are_announced_and_say_nothing_of_their_own(monkeypatch, caplog):
    chatter = logging.getLogger("hw3lib")
    canary = TrainVAE.canary
    monkeypatch.setattr(plan, "published", lambda seeds: [plan.Published(TINY)])
    runs.run(TINY)
    monkeypatch.setattr(TrainVAE, "canary", lambda self: chatter.info("epoch 1") or canary(self))
    caplog.set_level(logging.INFO)
    for words in (["reproduce"], ["reproduce", "--plan"]):
        assert "checking 1 canaries" in invoke(*words).stderr
    assert invoke("runs", "verify").exit_code == 0
    assert "epoch 1" not in caplog.text
    assert "canary" in invoke("reproduce", "--help").output


def test_runs_are_listed_by_a_part_of_their_description():
    runs.run(TINY)
    runs.run(TINY.changed(seed=3))
    assert len(invoke("runs", "list", "vae_training").output.splitlines()) == 3
    head, found = invoke("runs", "list", "seed=3").output.splitlines()
    assert found.startswith(TINY.changed(seed=3).key)
    assert invoke("runs", "list", "nothing").output.splitlines() == [head]


def test_the_help_of_run_says_how_to_list_experiments():
    assert "hw3 run '?'" in invoke("run", "--help").output
    assert "vae_training" in invoke("run", "?").stderr


def test_seeds_are_lists_and_ranges():
    assert cli._seeds("0-2,5") == [0, 1, 2, 5]
    with pytest.raises(ValueError, match="give seeds such as"):
        cli._seeds("zero")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "vae_trainning"], "no experiment 'vae_trainning'"),
        (["run", "vae_training", "beta"], "'beta' is not name=value"),
        (["run", "vae_training", "betta=4"], "betta"),
        (["runs", "show", "ffff"], "no stored run begins with ffff"),
        (["data", "check", "mnits"], "unknown data set 'mnits'"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hw3", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_data_check_says_what_it_found():
    assert "1,440 training and 357 test images" in invoke("data", "check", "digits").output
    both = invoke("data", "check", "digits", "shapes")
    assert both.exit_code == 0
    assert [line.split(":")[0] for line in both.output.splitlines()] == ["digits", "shapes"]


def test_data_check_without_names_looks_at_every_set_and_fails_if_one_is_missing(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HW3_DATA", str(tmp_path))
    data._cached.cache_clear()
    answer = invoke("data", "check")
    assert answer.exit_code == 1
    assert "4,000 training and 1,000 test images" in answer.output
    assert "1,440 training" in answer.output
    for name in ("mnist", "cifar10"):
        assert f"hw3 data fetch {name}" in answer.stderr
        assert f"{name}: " not in answer.stdout


def test_data_fetch_says_where_the_set_is(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "download", lambda name: tmp_path / name)
    assert invoke("data", "fetch", "cifar10").output.startswith("cifar10 is in")


def test_help_imports_nothing_slow():
    code = (
        "import sys\nfrom hw3lib.cli import main\nsys.argv[1:] = ['--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pydantic', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout


def test_the_package_is_a_command():
    words = [sys.executable, "-m", "hw3lib", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    assert "reproduce" in done.stdout


SLEEPER = """
import signal
import time
from hw3lib import cli

@cli.app.command("sleep")
def sleep():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    print("asleep", flush=True)
    time.sleep(600)

cli.main()
"""


@pytest.mark.parametrize(
    ("how", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_whoever_stops_it_is_told_how_to_go_on(how, code, word):
    words = [sys.executable, "-c", SLEEPER, "sleep"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(how)
        _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert error.strip() == f"hw3: {word}; run the same command again to go on"


def test_a_training_that_diverges_says_what_to_do():
    answer = invoke("run", "vae_training", *WORDS, "learning_rate=1e30")
    assert answer.exit_code == 1
    assert "hw3: " in answer.stderr
    assert "the run diverged: step " in answer.stderr
    assert "Lower the learning rate" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_cache_that_cannot_be_written_is_told_in_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HW3_CACHE", str(tmp_path / "file"))
    answer = invoke("run", "vae_training", *WORDS)
    assert answer.exit_code == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("hw3: ")
    assert "cannot be written" in line
    assert "set HW3_CACHE to a folder" in line
    assert invoke("runs", "list").exit_code == 0


def test_a_fault_that_nobody_foresaw_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(runs, "run", lambda *_, **__: {}["key"])
    assert isinstance(invoke("run", "vae_training", *WORDS).exception, KeyError)


def test_one_key_is_one_run_though_it_is_published_and_cached(monkeypatch):
    runs.run(TINY)
    runs.publish(TINY, weights=False)
    shown = invoke("runs", "show", TINY.key)
    assert shown.exit_code == 0
    assert str(store.PUBLISHED) in shown.output.replace("\n", "")


def test_a_wheel_is_the_same_bytes_whenever_it_is_built(tmp_path):
    root = Path(cli.__file__).parents[1]
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    environment = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
    wheels = []
    for year in (2001, 2026):
        tree, out = tmp_path / f"tree-{year}", tmp_path / f"out-{year}"
        shutil.copytree(
            root / "hw3lib", tree / "hw3lib", ignore=lambda *_: ["published", "__pycache__"]
        )
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(root / name, tree)
        for path in tree.rglob("*"):
            os.utime(path, (time := datetime(year, 1, 1).timestamp(), time))
        out.mkdir()
        subprocess.run(
            [sys.executable, "-c", build, str(out)],
            cwd=tree, env=environment, check=True, capture_output=True,
        )  # fmt: skip
        (wheel,) = out.iterdir()
        wheels.append(wheel.read_bytes())
    assert wheels[0] == wheels[1]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("step=1e-3", 1e-3),
        ("step=2E+1", 20.0),
        ("step=1.5", 1.5),
        ("name=1e", "1e"),
        ("name='1e-3'", "1e-3"),
        ("name=1e-3 s", "1e-3 s"),
        ("betas=[1e-3, 2, +1.5e2, -1E3]", [1e-3, 2, 150.0, -1000.0]),
        ("defense={alpha: 5e-1}", {"alpha": 0.5}),
    ],
)
def test_numbers_are_read_as_papermill_reads_them(word, value):
    (found,) = cli._assignments([word]).values()
    assert found == value
    assert type(found) is type(value)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    answer = invoke("notebook", "book/q1_08_training.ipynb", "out.ipynb")
    assert answer.exit_code == 1
    assert "papermill" in answer.stderr
    assert "pip install 'hw3lib[book]'" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
