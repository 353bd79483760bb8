import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from hw3lib import data, runs
from hw3lib.experiments.part1.marginal_likelihood import PosteriorGrid
from hw3lib.experiments.part1.vae_training import TrainVAE
from hw3lib.experiments.part2.networks import networks
from hw3lib.experiments.part2.resnet_training import TrainResNet
from hw3lib.robust.attacks import PGD
from hw3lib.robust.defenses import JoinedBatch
from hw3lib.runs import schedule
from hw3lib.runs.settings import OutOfTime
from tests import processes

TINY = TrainVAE(dataset="digits", latent_dim=2, num_filters=2, epochs=1)


TWO = pytest.param(2, marks=pytest.mark.long)
"""Jobs whose processes take their time to start."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def quick_processes(monkeypatch):
    """The pool's processes are forked, where it is no matter how they start."""
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", processes.pool)


def test_what_a_run_is_made_from_is_found_at_any_depth():
    nets = networks("shapes")
    assert schedule.needed(TINY) == set()
    assert schedule.needed(PosteriorGrid(vae=TINY)) == {TINY}
    assert schedule.needed(nets.pgd_defense) == {nets.pretrained}


@pytest.mark.long
def test_several_at_a_time_give_the_same_and_each_waits_for_what_it_needs():
    grid = PosteriorGrid(vae=TINY, size=5)
    wanted = [TINY, TINY.changed(seed=1), grid, TINY.changed(seed=2)]
    done = list(schedule.compute_all(wanted, jobs=2))
    order = [run.settings for run in done]
    assert sorted(order, key=wanted.index) == wanted
    assert order.index(TINY) < order.index(grid)
    assert runs.find(grid) is not None
    again = runs.compute(TINY)
    assert again.results["test"] == pytest.approx(done[order.index(TINY)].results["test"], rel=1e-5)


@pytest.mark.parametrize("jobs", [1, TWO])
def test_what_another_needs_is_computed_once_whatever_the_order(jobs, quick_processes):
    grid = PosteriorGrid(vae=TINY, size=5)
    done = [run.settings for run in schedule.compute_all([grid, TINY], jobs=jobs)]
    assert done == [TINY, grid]


@pytest.mark.parametrize("jobs", [1, 2])
def test_out_of_time_keeps_what_is_finished(jobs, quick_processes):
    with pytest.raises(OutOfTime):
        list(schedule.compute_all([TINY], jobs=jobs, deadline=time.monotonic() - 1))
    assert runs.find(TINY) is None


@pytest.mark.parametrize("jobs", [1, TWO])
def test_a_failure_comes_last_and_stops_only_what_needs_it(
    jobs, monkeypatch, tmp_path, caplog, quick_processes
):
    monkeypatch.setenv("HW3_DATA", str(tmp_path))
    broken, others = TINY.changed(dataset="mnist"), [TINY.changed(seed=s) for s in range(3)]
    with pytest.raises(data.DataError, match="MNIST is not on this machine"):
        list(schedule.compute_all([broken, PosteriorGrid(vae=broken), *others], jobs=jobs))
    assert all(runs.find(other) for other in others)
    assert f"{broken.describe()} failed" in caplog.text


@pytest.mark.long
def test_runs_that_share_a_checkpoint_are_not_computed_at_the_same_time(quick_processes):
    """Two processes would resume from one file and overwrite it; the longer run goes on from it."""
    longer = TINY.changed(epochs=3)
    assert longer.checkpoint_key == TINY.checkpoint_key
    done = [run.settings for run in schedule.compute_all([longer, TINY], jobs=2)]
    assert done == [longer, TINY]  # side by side the shorter one would have come first


def took(seconds, settings, device="this one"):
    provenance = {"device": device, "seconds": seconds}
    return SimpleNamespace(settings=settings, provenance=provenance)


LONG = TINY.changed(epochs=10, beta=4.0)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([], None),
        ([took(50, TINY, "another")], None),
        ([took(50, PosteriorGrid(vae=TINY))], None),
        ([took(50, TINY)], 500),  # in proportion to the epochs
        ([took(50, TINY.changed(epochs=0))], 500),  # none takes as long as one, not no time
        ([took(50, LONG.changed(seed=3))], 50),  # a seed makes no difference
        ([took(90, LONG.changed(beta=1.0)), took(50, LONG), took(70, TINY)], 50),  # the nearest
        ([took(9, LONG, "another"), took(90, LONG.changed(latent_dim=7))], 90),
    ],
)
def test_a_run_is_expected_to_take_what_the_nearest_one_took(stored, expected):
    assert schedule.expected_seconds(LONG, stored, "this one") == expected


def test_what_has_no_epochs_is_expected_to_take_as_long_as_before():
    stored = [took(50, PosteriorGrid(vae=TINY, size=5))]
    assert schedule.expected_seconds(PosteriorGrid(vae=TINY), stored, "this one") == 50


def test_a_training_takes_the_time_of_one_without_attacks_whatever_its_rate():
    stored = [
        took(900, TrainResNet(defense=JoinedBatch(PGD(8 / 255)))),
        took(50, TrainResNet(learning_rate=0.3, momentum=0.5, augmented=True)),
    ]
    assert schedule.expected_seconds(TrainResNet(), stored, "this one") == 50


@pytest.mark.parametrize("before", [None, "7"])
@pytest.mark.parametrize(("jobs", "threads"), [(1, "8"), (3, "2"), (8, "1"), (20, "1")])
def test_processes_share_the_cores_while_they_run(monkeypatch, jobs, threads, before):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if before:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    with schedule._shared_cores(jobs):
        assert os.environ["OMP_NUM_THREADS"] == threads
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_device_and_deadline_are_passed_on(monkeypatch):
    asked = []
    monkeypatch.setattr(schedule, "compute", lambda one, **options: asked.append((one, options)))
    options = {"device": "mars", "deadline": time.monotonic() + 1000}
    list(schedule.compute_all([TINY, LONG], **options))
    assert asked == [(TINY, options), (LONG, options)]


def test_processes_compute_on_the_device_asked_for(quick_processes):
    with pytest.raises(RuntimeError, match="mars"):
        list(schedule.compute_all([TINY], jobs=2, device="mars"))


def test_no_process_is_no_way_to_compute():
    with pytest.raises(ValueError, match="at least one process"):
        list(schedule.compute_all([TINY], jobs=0))


SLEEPERS = """
import os, time
from pathlib import Path
from typing import ClassVar
from hw3lib.runs import Outcome, Settings
from hw3lib.runs.schedule import compute_all

class Sleep(Settings):
    experiment: ClassVar[str] = "test_sleep"
    folder: str
    seed: int = 0

    def compute(self, context):
        Path(self.folder, f"{self.seed}.pid").write_text(f"{os.getpid()}\\n")
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            Path(self.folder, f"{self.seed}.saved").touch()
            raise
        return Outcome({})

    def canary(self):
        return []

def main(folder):
    list(compute_all([Sleep(folder=folder, seed=seed) for seed in range(4)], jobs=2))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_processes_stop_with_the_one_that_started_them(tmp_path, how):
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '.')}"}
    code = (
        "import signal, sleepers\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        f"if __name__ == '__main__': sleepers.main({str(tmp_path)!r})"
    )
    (tmp_path / "start.py").write_text(code)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "start.py"], env=environment, stderr=subprocess.PIPE, text=True
    )

    def began():
        return [path for path in tmp_path.glob("*.pid") if path.read_text().endswith("\n")]

    while len(began()) < 2:
        assert parent.poll() is None, parent.stderr.read()
        time.sleep(0.05)
    workers = [psutil.Process(int(path.read_text())) for path in began()]
    parent.send_signal(how)
    parent.communicate(timeout=60)
    psutil.wait_procs(workers, timeout=60)
    assert not any(worker.is_running() and worker.status() != "zombie" for worker in workers)
    saved = len(list(tmp_path.glob("*.saved")))
    assert saved == (2 if how == signal.SIGINT else 0)
    assert len(began()) == 2  # no other one was started
