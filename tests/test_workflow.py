"""The sweep: what was killed or cannot be read is made again, nothing is lost or counted twice."""

import csv
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.book.notebooks import ROOT

SNAKEMAKE = ROOT / ".venv-sweep" / "bin" / "snakemake"
SEEDS = [0, 1, 2]
NOTEBOOKS = ["q1_05_reconstruction_regularisation", "q1_08_training"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Starts snakemake on two notebooks and three seeds of the embedded digits."""
    folder = tmp_path_factory.mktemp("sweep")
    small, job = {"dataset": "digits", "epochs": 1}, {"gpu": 0, "mem_mb": 3000, "runtime": 20}
    config = {
        "python": str(ROOT / ".venv/bin/python"),
        "results": str(folder / "results"),
        "seeds": SEEDS,
        "runs": {"vae": {"experiment": "vae_training", "settings": small}},
        "notebooks": dict.fromkeys(NOTEBOOKS, small),
        "resources": {"run": job, "notebook": job},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = os.environ | {"HW3_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

    def start(profile="local", *words):
        command = [SNAKEMAKE, "--profile", f"workflow/profiles/{profile}"]
        command += ["--configfile", folder / "config.yaml", *words]
        with (folder / "log").open("a") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, text=True
            )

    start.results = folder / "results"
    start.log = folder / "log"
    return start


def outputs(sweep) -> dict[Path, int]:
    """Finished notebooks and when they were written."""
    found = sweep.results.glob("notebooks/*/seed-?.ipynb")
    return {path: path.stat().st_mtime_ns for path in found}


def running_notebook(parent: int) -> psutil.Process | None:
    """A job in the middle of a notebook: it has started a kernel."""
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if "notebook" in process.cmdline()[:4] and process.children():
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def slurm_notebook() -> str | None:
    """The number of a notebook's job that Slurm has started."""
    queue = ["squeue", "--noheader", "--states=R", "--format=%i %k"]  # the comment names the rule
    lines = subprocess.run(queue, check=True, capture_output=True, text=True).stdout.splitlines()
    return next((line.split()[0] for line in lines if "rule_notebook" in line), None)


@pytest.mark.sweep
def test_a_killed_job_and_an_unreadable_result_are_made_again_and_nothing_else(sweep):
    first = sweep("local", "--restart-times", "0")
    while (job := running_notebook(first.pid)) is None:
        assert first.poll() is None, sweep.log.read_text()
        time.sleep(0.1)
    job.send_signal(signal.SIGKILL)
    assert first.wait() != 0
    before = outputs(sweep)
    assert len(before) == len(NOTEBOOKS) * len(SEEDS) - 1, sweep.log.read_text()
    assert not (sweep.results / "summary.csv").exists()

    assert sweep().wait() == 0, sweep.log.read_text()
    after = outputs(sweep)
    assert len(after) == len(NOTEBOOKS) * len(SEEDS)
    assert {path: after[path] for path in before} == before

    broken = next(iter(after))
    broken.write_text(broken.read_text()[:1000])
    assert sweep().wait() == 0, sweep.log.read_text()
    assert {path for path, when in outputs(sweep).items() if after[path] != when} == {broken}

    with (sweep.results / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["notebook"] for row in rows} == set(NOTEBOOKS)
    assert max(int(row["n"]) for row in rows) == len(SEEDS)


@pytest.mark.slurm
@pytest.mark.timeout(1800)  # the scheduler is asked how jobs are only every half a minute
def test_on_slurm_a_cancelled_job_is_made_again_and_nothing_else(sweep):
    # A cluster without an accounting database answers by squeue alone.
    options = ["--slurm-status-command", "squeue", "--slurm-no-account"]
    options += ["--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "10"]
    first = sweep("slurm", *options, "--restart-times", "0")
    while (job := slurm_notebook()) is None:
        assert first.poll() is None, sweep.log.read_text()
        time.sleep(0.5)
    subprocess.run(["scancel", job], check=True)
    assert first.wait() != 0
    before = outputs(sweep)
    assert len(before) == len(NOTEBOOKS) * len(SEEDS) - 1, sweep.log.read_text()

    assert sweep("slurm", *options).wait() == 0, sweep.log.read_text()
    after = outputs(sweep)
    assert len(after) == len(NOTEBOOKS) * len(SEEDS)
    assert {path: after[path] for path in before} == before
    assert (sweep.results / "summary.csv").exists()


@pytest.mark.sweep
@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_the_cluster_profiles_plan_the_same_jobs(sweep, profile):
    plan = sweep(profile, "--dry-run", "--forceall", "--config", f"results=other-{profile}")
    assert plan.wait() == 0, sweep.log.read_text()
    jobs = sweep.log.read_text().rsplit("Job stats:", 2)[-1]
    assert re.search(rf"^notebook +{len(NOTEBOOKS) * len(SEEDS)}$", jobs, re.MULTILINE)
    assert re.search(rf"^run +{len(SEEDS)}$", jobs, re.MULTILINE)
