"""Wrong use is told in one sentence: what was seen, why it is wrong, what to do."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from hw3lib import augmentation, cli, data, robust, runs, shapes, stats
from hw3lib.book.glue import MIME_PREFIX
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.robust.attacks import NoGradientError
from hw3lib.runs import schedule
from hw3lib.runs.settings import RunError
from tests.book.notebooks import BOOK

NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
EXECUTED = {"papermill": {"input_path": "x.ipynb", "parameters": {}}}
CELL = {"cell_type": "code", "id": "a", "metadata": {}, "source": "", "outputs": []}
GLUED_NAN = {
    "metadata": {"scrapbook": {"name": "bpd"}},
    "data": {f"{MIME_PREFIX}text/plain": "'nan'"},
}
FILES = {
    "dict.ipynb": {"a": 1},
    "list.ipynb": [],
    "text.ipynb": "x",
    "empty.ipynb": NOTEBOOK,
    "cells.ipynb": NOTEBOOK | {"cells": ["x"], "metadata": EXECUTED},
    "old.ipynb": NOTEBOOK | {"cells": [CELL | {"execution_count": None}]},
    "silent.ipynb": NOTEBOOK | {"metadata": EXECUTED},
    "unknown.ipynb": NOTEBOOK | {"metadata": EXECUTED, "cells": [CELL | {"outputs": [GLUED_NAN]}]},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files of other kinds than asked for, and an empty cache."""
    monkeypatch.setenv("HW3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HW3_DATA", str(tmp_path / "data"))
    data._cached.cache_clear()  # what another test has loaded is not there
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_text(json.dumps(content))
    Path("nothing.ipynb").touch()
    Path("file").touch()
    return tmp_path


# The command line. A word that starts with an apostrophe is one word with spaces or empty.

COMMANDS = [
    ("run nope", "no experiment 'nope'; there are adversarial_pictures, "),
    ("run vae_training beta", "'beta' is not name=value"),
    ("run vae_training =3", "'=3' is not name=value"),
    ("run vae_training beta=4 beta=5", "beta is given twice"),
    ("run vae_training betta=4", "vae_training has no setting betta; it has [a-z_]+, "),
    ("run vae_training beta=x", "TrainVAE: beta='x': Input should be a valid number"),
    ("run vae_training beta=", "TrainVAE: beta=None: Input should be a valid number"),
    ("run vae_training beta=yes", "TrainVAE: beta=True: .*Input should be a number"),
    ("run vae_training beta=-1", "TrainVAE: beta=-1: Input should be greater than or equal to 0"),
    ("run vae_training seed=-1", "TrainVAE: seed=-1: .*Input should be greater than or equal to 0"),
    ("run vae_training beta=.nan", "TrainVAE: beta=nan: Input should be a finite number"),
    ("run vae_training beta={a", "'beta={a': its value is not YAML"),
    ("run vae_training epochs=1.5", "epochs=1.5: Input should be a valid integer"),
    ("run vae_training epochs=-3", "epochs=-3: Input should be greater than or equal to 0"),
    ("run vae_training dataset=mnits", "dataset='mnits': Input should be 'mnist' or 'digits'"),
    ("run vae_training latent_dim=0 num_filters=0", "latent_dim=0: .*; num_filters=0: "),
    ("run vae_training --device tpu", "--device tpu cannot be used here: "),
    ("run vae_training --device cuda:99", "--device cuda:99 cannot be used here: "),
    ("run vae_training --device meta", "--device meta cannot be used here: "),
    ("run vae_training seed=12345", "MNIST is not on this machine. Three ways out: run `hw3 data"),
    ("run resnet_training defense=3", "TrainResNet: defense=3: "),
    ("runs show ffffffffffffffff", "no stored run begins with ffffffffffffffff; see `hw3 runs"),
    ("runs show '", "a key, or its beginning, has one hex digit or more; see `hw3 runs list`"),
    ("runs show 0", "[0-9]+ runs begin with 0: 0[0-9a-f]{15}, 0"),
    ("runs verify '", "a key, or its beginning, has one hex digit or more; see `hw3 runs list`"),
    ("runs verify zz yy", "no stored run begins with zz, yy; see `hw3 runs list`"),
    ("data check mnits", "unknown data set 'mnits'; choose 'mnist', 'cifar10', 'digits' or 'sha"),
    ("data check '", "unknown data set ''; choose 'mnist', "),
    ("data fetch digits", "'digits' is not downloaded; choose 'mnist' or 'cifar10'"),
    ("data fetch mnits", "'mnits' is not downloaded; choose 'mnist' or 'cifar10'"),
    ("reproduce --seeds 5-2", "--seeds '5-2': 5-2 runs backwards; write 2-5"),
    ("reproduce --seeds x", "--seeds 'x': give seeds such as 0, 0-4 or 0,2,5"),
    ("reproduce --seeds '", "--seeds '': give seeds such as 0, 0-4 or 0,2,5"),
    ("reproduce --seeds -1", "--seeds '-1': give seeds such as 0, 0-4 or 0,2,5"),
    ("reproduce --seeds 0,", "--seeds '0,': give seeds such as 0, 0-4 or 0,2,5"),
    ("reproduce --seeds 3-", "--seeds '3-': give seeds such as 0, 0-4 or 0,2,5"),
    ("reproduce --seeds 1,0-2", "--seeds '1,0-2': 1 is given twice"),
    ("reproduce --only nothing", "no published run of these seeds contains --only 'nothing'; "),
    ("reproduce --only nothing --plan", "no published run of these seeds contains --only"),
    ("reproduce --time-budget 0", "--time-budget 0: 20 s are kept for storing, so give more"),
    ("reproduce --time-budget -5", "--time-budget -5: 20 s are kept for storing, so give more"),
    ("reproduce --time-budget nan", "--time-budget nan: 20 s are kept for storing, so give more"),
    ("reproduce --plan --device tpu", "--device tpu cannot be used here: "),
    ("notebook dict.ipynb out.ipynb", "dict.ipynb is not a notebook "),
    ("notebook list.ipynb out.ipynb", "list.ipynb is not a notebook "),
    ("notebook text.ipynb out.ipynb", "text.ipynb is not a notebook "),
    ("notebook nothing.ipynb out.ipynb", "nothing.ipynb is not a notebook "),
    ("notebook cells.ipynb out.ipynb", "cells.ipynb is not a notebook "),
    ("notebook none.ipynb out.ipynb", "No such file or directory: 'none.ipynb'"),
    ("notebook cache/.. out.ipynb", "No such file or directory: 'cache/..'"),
    ("notebook . out.ipynb", "Is a directory: '.'"),
    ("notebook empty.ipynb out.ipynb seed=3", "empty.ipynb has no parameter seed; it has none"),
    ("notebook empty.ipynb out.ipynb seed", "'seed' is not name=value"),
    ("notebook empty.ipynb out.ipynb a=1 a=2", "a is given twice"),
    ("summary dict.ipynb", "dict.ipynb is not a readable notebook that papermill executed"),
    ("summary list.ipynb", "list.ipynb is not a readable notebook that papermill executed"),
    ("summary text.ipynb", "text.ipynb is not a readable notebook that papermill executed"),
    ("summary nothing.ipynb", "nothing.ipynb is not a readable notebook that papermill executed"),
    ("summary cells.ipynb", "cells.ipynb is not a readable notebook that papermill executed"),
    ("summary old.ipynb", "old.ipynb is not a readable notebook that papermill executed"),
    ("summary unknown.ipynb", "unknown.ipynb quotes bpd = nan, which has no mean"),
    ("summary silent.ipynb", "no number is quoted in silent.ipynb"),
    ("summary silent.ipynb silent.ipynb", "silent.ipynb are the same execution; leave one out"),
    ("summary none.ipynb", "No such file or directory: 'none.ipynb'"),
]


def split(words):
    return ["" if word == "'" else word for word in words.split()]


@pytest.mark.parametrize(("words", "message"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_a_wrong_command_is_answered_in_one_line(folder, words, message):
    answer = CliRunner().invoke(cli.app, split(words))
    assert isinstance(answer.exception, SystemExit), answer.exception
    assert answer.exit_code == 1
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert re.match(rf"hw3: .*{message.replace('(', '[(]')}", line), line
    assert not Path("out.ipynb").exists()


ODD = [
    ("q1_08_training", "dataset=mnits", "dataset='mnits': Input should be 'mnist' or 'digits'"),
]
MORE_ODD = [
    ("q1_08_training", "seed=-1", "seed=-1: Input should be greater than or equal to 0"),
    ("q1_08_training", "epochs=0", "epochs=0: Input should be greater than 0"),
    ("q1_01_sampling", "draws=0", "draws=0: Input should be greater than 0"),
    ("q1_02_monte_carlo", "image=64", "image=64: 64 test images are stored, so at most 63"),
    ("q1_03_elbo", "num_q=two", "num_q='two': Input should be a valid integer"),
    (
        "q1_04_tight_bound",
        "dataset=cifar10",
        "dataset='cifar10': Input should be 'mnist' or 'digits'",
    ),
    ("q1_06_monte_carlo_kl", "components=0", "components=0: Input should be greater than 0"),
    (
        "q1_09_samples_over_training",
        "num_samples=0",
        "num_samples=0: Input should be greater than 0",
    ),
    ("q1_10_manifold", "size=1", "size=1: the page compares neighbours"),
    ("q1_11_beta", "betas=[1, -1]", r"betas\[1\]=-1: Input should be greater than 0"),
    ("q1_11_beta", "betas=[2, 4]", r"betas=\[2, 4\]: they have to ascend, with 1 among them"),
    ("q2_1_attacks", "fgsm_eps=8", "this allows any image"),
    ("q2_1_attacks", "dataset=mnist", "dataset='mnist': Input should be 'cifar10' or 'shapes'"),
    (
        "q2_2_fgsm_defense",
        "alpha_dataset=cats",
        "alpha_dataset='cats': Input should be 'cifar10' or",
    ),
    ("q2_1_attacks", "num_images=0", "num_images=0: Input should be greater than 0"),
    ("q2_2_fgsm_defense", "alphas=[0.2]", "0.5 and 1 are compared, so they have to be among them"),
    ("q2_2_fgsm_defense", "alpha=2", "alpha=2: the weight of the clean loss lies in"),
    ("q2_3_pgd_defense", "pgd_steps=0", "pgd_steps=0: Input should be greater than 0"),
    ("own_network", "epochs=0", "epochs=0: a network that was never trained"),
    ("status", "verify=some", "verify='some': Input should be 'kinds' or 'all'"),
]
ODD += [pytest.param(*case, marks=pytest.mark.long) for case in MORE_ODD]


@pytest.mark.parametrize(("page", "parameter", "message"), ODD)
def test_an_odd_parameter_ends_a_notebook_in_one_line(folder, page, parameter, message):
    words = ["notebook", str(BOOK / f"{page}.ipynb"), "out.ipynb", parameter]
    answer = CliRunner().invoke(cli.app, words)
    assert answer.exit_code == 1
    (line,) = answer.stderr.splitlines()
    assert re.search(rf"failed in cell \d+ \(\w+: .*{message}.*\); ", line), line
    assert "pydantic" not in line
    assert not Path("out.ipynb").exists()


USAGE = [
    ("", "Commands:"),
    ("nope", "No such command 'nope'"),
    ("--nope", "No such option: --nope"),
    ("run", "Missing argument"),
    ("runs", "Commands:"),
    ("runs show", "Missing argument"),
    ("runs list text extra", "unexpected extra argument"),
    ("data", "Commands:"),
    ("data fetch", "Missing argument"),
    ("notebook empty.ipynb", "Missing argument"),
    ("summary", "Missing argument"),
    ("reproduce --jobs 0", "Invalid value for '--jobs'"),
    ("reproduce --jobs two", "Invalid value for '--jobs'"),
    ("reproduce --time-budget soon", "Invalid value for '--time-budget'"),
]


@pytest.mark.parametrize(("words", "message"), USAGE, ids=[words for words, _ in USAGE])
def test_a_command_that_is_none_shows_its_usage(folder, words, message):
    answer = CliRunner().invoke(cli.app, split(words))
    assert answer.exit_code == 2
    assert message in answer.output
    assert "Usage: " in answer.output


# The library

GREY, COLOUR = torch.rand(2, 8, 8), torch.rand(2, 3, 8, 8)
DRAWS = torch.zeros(2, 3, dtype=torch.int64)
MASKS = np.eye(30, dtype=bool)

CALLS = {
    # data
    "a data set of another name": (lambda: data.load("MNIST"), ValueError, "unknown data set 'MNI"),
    "a data set that is not there": (
        lambda: data.load("cifar10", "here"), data.DataError, "CIFAR10 is not on this machine. Th"
    ),
    "a download of what is embedded": (
        lambda: data.download("shapes"), ValueError, "'shapes' is not downloaded; choose 'mnist' or"
    ),
    "a download into a file": (
        lambda: data.download("mnist", "file"), data.DataError, "MNIST could not be downloaded"
    ),
    "the checksum of nothing": (lambda: data.checksum(""), ValueError, "unknown data set ''"),
    "levels of float pixels": (lambda: data.quantize(GREY), TypeError, "needs the raw uint8"),
    "levels of levels": (lambda: data.quantize(GREY.long()), TypeError, "pixels are torch.int64"),
    "pixels of pixels": (lambda: data.to_pixels(GREY), TypeError, "are in [0, 1] already"),
    "a split of less than nothing": (
        lambda: data.train_val_split(-1), ValueError, "-1 examples cannot be split"
    ),
    "a test split of less than nothing": (
        lambda: data.test_split(-1), ValueError, "-1 examples cannot be split"
    ),
    "halves of one-hot labels": (
        lambda: data.stratified_halves(torch.eye(3), 0), ValueError, "(3, 3); they need (N,)"
    ),
    "a seed that is a float": (lambda: data.generator(1.0, "x"), TypeError, "must be integers"),
    "a seed that is a tensor": (
        lambda: data.generator(torch.tensor(1), "x"), TypeError, "must be integers"
    ),
    "an epoch that is a text": (
        lambda: data.generator(1, "x", "2"), TypeError, "must be integers"
    ),
    "crops of grey images": (
        lambda: augmentation.augment(GREY, DRAWS), ValueError, "they need (N, C, H, W) and (N, 3)"
    ),
    "crops of too few draws": (
        lambda: augmentation.augment(COLOUR, DRAWS[:1]), ValueError, "with the same N"
    ),
    "crops beyond the border": (
        lambda: augmentation.augment(COLOUR, DRAWS + 9), ValueError, "column between 0 and 8"
    ),
    "squares for other images": (
        lambda: augmentation.erase(COLOUR, DRAWS[:1, :2], 3), ValueError, "(N, 2) with the same N"
    ),
    "squares of a negative side": (
        lambda: augmentation.erase(COLOUR, DRAWS[:, :2], -3), ValueError, "side=-3"
    ),
    "fewer pictures than none": (lambda: shapes.draw(-1, 0), ValueError, "num=-1"),
    "a picture and a half": (lambda: shapes.draw(1.5, 0), ValueError, "must be integers, 0"),
    "pictures by yes and no": (lambda: shapes.draw(True, 0), ValueError, "num=True, seed=0: both"),
    "pictures of a negative seed": (lambda: shapes.draw(1, -1), ValueError, "seed=-1"),
    # stats
    "the mean of nothing": (lambda: stats.mean_interval([]), ValueError, "one or more finite"),
    "the mean of a missing value": (
        lambda: stats.mean_interval([1, np.nan]), ValueError, "one or more finite values"
    ),
    "the mean of a table": (
        lambda: stats.mean_interval([[1, 2], [3, 4]]), ValueError, "(2, 2): need an array of 1 dim"
    ),
    "the mean of a number": (lambda: stats.mean_interval(1.0), ValueError, "need an array of 1"),
    "a confidence in percent": (
        lambda: stats.mean_interval([1, 2], 95), ValueError, "confidence=95: a share between"
    ),
    "a confidence of one": (lambda: stats.proportion(1, 2, 1), ValueError, "confidence=1"),
    "more right than all": (lambda: stats.proportion(3, 2), ValueError, "3 of 2 is no share"),
    "a negative count": (lambda: stats.proportion(-1, 2), ValueError, "-1 of 2 is no share"),
    "a share of all there is": (
        lambda: stats.proportion(1, float("inf")), ValueError, "1 of inf is no share"
    ),
    "a share of nothing": (lambda: stats.proportion(0, 0), ValueError, "0 of 0 is no share"),
    "half an image": (lambda: stats.proportion(0.5, 2), ValueError, "need whole numbers"),
    "a share that is missing": (lambda: stats.proportion(np.nan, 2), ValueError, "nan of 2"),
    "a slope of two points": (
        lambda: stats.slope([1, 2], [1, 2]), ValueError, "needs three points or more"
    ),
    "a slope without a way": (
        lambda: stats.slope([1, 1, 1], [1, 2, 3]), ValueError, "not all of the same x"
    ),
    "a slope of unequal lists": (
        lambda: stats.slope([1, 2, 3], [1, 2]), ValueError, "3 x and 2 y"
    ),
    "an exponent of zero": (
        lambda: stats.log_log_slope([0, 1, 2], [1, 2, 3]), ValueError, "only positive values"
    ),
    "a bootstrap of one value": (
        lambda: stats.bootstrap_interval([1.0]), ValueError, "need at least 2 and 1"
    ),
    "a bootstrap without samples": (
        lambda: stats.bootstrap_interval([1.0, 2], resamples=0), ValueError, "0 resamples"
    ),
    "a statistic that is missing": (
        lambda: stats.bootstrap_interval([1.0, 2], lambda x: np.nan), ValueError, "sample of these"
    ),
    "seeds without images": (
        lambda: stats.two_way_interval(MASKS[0]), ValueError, "(30,): need an array of 2 dimensions"
    ),
    "images that are missing": (
        lambda: stats.two_way_interval([[1, np.nan]]), ValueError, "one or more finite values"
    ),
    "an interval from right to left": (
        lambda: stats.Interval(0, 1, -1, 2), ValueError, "cannot go from 1 to -1"
    ),
    "an interval with one end": (
        lambda: stats.Interval(0, np.nan, 1, 2), ValueError, "cannot go from nan to 1"
    ),
    "a question to no interval": (
        lambda: 1 in stats.mean_interval([1]), ValueError, "no interval (n = 1)"
    ),
    "a difference from no interval": (
        lambda: stats.difference(stats.mean_interval([1]), stats.proportion(1, 2)),
        ValueError, "neither has a difference"
    ),
    "counts of other cells": (
        lambda: stats.chi_square([1, 2, 3], [0.5, 0.5]), ValueError, "need the same shape"
    ),
    "negative counts": (lambda: stats.chi_square([-1, 2], [0.5, 0.5]), ValueError, "no negative"),
    "no distribution": (
        lambda: stats.chi_square([1, 2], [0.5, 0.6]), ValueError, "must be 0 or more, and sum to 1"
    ),
    # robust
    "a list of models": (
        lambda: robust.correct([], COLOUR, DRAWS[:, 0]), TypeError, "logits; this is a list"
    ),
    "an attack that was not made": (
        lambda: robust.withstood(nn.Flatten(), robust.PGD, COLOUR, DRAWS[:, 0]), TypeError,
        "is a type; an attack that holds its model, as those of other libraries do, is called as"
    ),
    "a loader that shuffles": (
        lambda: robust.correct(nn.Flatten(), DataLoader(list(COLOUR), shuffle=True)), ValueError,
        "the loader shuffles, so masks of two calls are not of the same images; make it with"
    ),
    "images and labels as one": (
        lambda: robust.correct(nn.Flatten(), (COLOUR, DRAWS)), TypeError, "pass x, y as two"
    ),
    "a batch by names": (
        lambda: robust.correct(nn.Flatten(), [{"x": COLOUR}]), TypeError, "a dict with keys x; pass"
    ),
    "a ball beside an attack's own": (
        lambda: robust.withstood(
            nn.Flatten(), robust.FGSM(0.1), COLOUR, DRAWS[:, 0], within=(0.1, "l2")
        ), ValueError, "FGSM(eps=0.1) has a ball of its own; within= is for attacks that have none",
    ),
    "a report with two clean rows": (
        lambda: robust.report(nn.Flatten(), {"clean": robust.FGSM(0.1)}, COLOUR, DRAWS[:, 0]),
        ValueError, "an attack is named 'clean', as is a row of the report; rename it"
    ),
    "averages of half a draw": (
        lambda: robust.Averaged(nn.Flatten(), draws=0.5), TypeError, "draws=0.5: it must be a whole"
    ),
    "a gradient that is cut": (
        lambda: robust.FGSM(0.1)(lambda x: x.detach().flatten(1) - 1, COLOUR, DRAWS[:, 0]),
        NoGradientError, "carry no gradient of the pixels, and the attack follows it; take torch.no"
    ),
    # runs
    "a run by its name": (
        lambda: runs.run("vae_training"), TypeError, "is not settings of a run, such as `TrainVAE("
    ),
    "a search by a key": (lambda: runs.find("0123"), TypeError, "'0123' is not settings of a run"),
    "a computation of a class": (lambda: runs.compute(TrainVAE), TypeError, "is not settings of"),
    "a setting misspelt": (lambda: TrainVAE(sied=1), ValidationError, "sied"),
    "a setting of another kind": (lambda: TrainVAE(beta="four"), ValidationError, "valid number"),
    "a setting that is no number": (lambda: TrainVAE(seed=True), ValidationError, "be a number"),
    "a negative seed": (lambda: TrainVAE(seed=-1), ValidationError, "greater than or equal to 0"),
    "a run of a negative seed": (lambda: TrainVAE().reseeded(-1), ValidationError, "seed"),
    "a setting changed to nonsense": (
        lambda: TrainVAE().changed(latent_dim=0), ValidationError, "latent_dim"
    ),
    "a setting written": (lambda: setattr(TrainVAE(), "beta", 2), ValidationError, "frozen"),
    "a run that is no file": (lambda: runs.read(Path("none.json")), RunError, "none.json is not a"),
    "a run that is a folder": (lambda: runs.read(Path()), RunError, "is not a readable run"),
    "a run of another kind": (
        lambda: runs.read(Path("dict.ipynb")), RunError, "no digest; it is of an older version"
    ),
    "runs in no folder": (
        lambda: list(runs.stored_runs("nowhere")), RunError, "there is no folder nowhere"
    ),
    "what was not computed, published": (
        lambda: runs.publish(TrainVAE(seed=77), weights=False), RunError, "compute it first"
    ),
    "no process": (
        lambda: list(schedule.compute_all([], jobs=0)), ValueError, "need at least one process"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_says_what_was_seen_and_wanted(folder, name):
    call, kind, message = CALLS[name]
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert caught.type is kind


def test_the_table_is_long():
    assert len(COMMANDS) + len(USAGE) + len(CALLS) >= 120
