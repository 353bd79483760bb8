"""Plant classic mistakes one at a time, and see that a test fails: `make mutants`.

Each is a replacement of text that occurs once in a file of `hw3lib`, with the tests that should
notice (`mutants.yml`). The tests run in a process of their own, in a copy of the checkout; it is
caught if one of them fails. Before that all these tests run in an unchanged copy, where none may.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

SETTINGS = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Mutant:
    """A mistake: what it is, where, and the tests that should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def planted(self, source: str) -> str:
        """The source with the mistake.

        Raises:
            ValueError: what is to be replaced does not occur exactly once.
        """
        if (times := source.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.old!r} occurs {times} times in {self.file}")
        return source.replace(self.old, self.new)


def catalog() -> list[Mutant]:
    """All mutants, in the order of the file."""
    entries = yaml.safe_load((HERE / "mutants.yml").read_text(encoding="utf-8"))
    return [Mutant(**entry) for entry in entries]


def fails(tests: str, mutant: Mutant | None = None, *, tell: bool = False) -> bool:
    """Whether one of these tests fails on a copy of the package, with a mistake or without.

    Args:
        tests: what pytest is given.
        mutant: the mistake to plant, if any.
        tell: print what pytest says of a test that fails.

    Raises:
        RuntimeError: the tests could not be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for path in ROOT.iterdir():
            if path.name != "hw3lib" and not path.name.startswith((".", "_build")):
                (copy / path.name).symlink_to(path)
        kept = shutil.ignore_patterns("published", "__pycache__")
        shutil.copytree(ROOT / "hw3lib", copy / "hw3lib", ignore=kept)
        (copy / "hw3lib" / "published").symlink_to(ROOT / "hw3lib" / "published")
        if mutant:
            path = copy / mutant.file
            path.write_text(mutant.planted(path.read_text(encoding="utf-8")), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests.split()],
            cwd=copy, env=os.environ | SETTINGS, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{tests}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    if tell and done.returncode:
        print(done.stdout[-4000:])
    return done.returncode == 1


def main(
    only: Annotated[str, typer.Option(help="mutants whose name or file contains this")] = "",
    jobs: Annotated[int, typer.Option(help="processes at a time")] = os.cpu_count() or 1,
) -> None:
    """Plant each mutant, run its tests, print a table; exit status 1 if one survives."""
    mutants = [m for m in catalog() if only in m.name or only in m.file]
    if not mutants:
        raise typer.BadParameter(f"no mutant has {only!r} in its name or file")
    chosen = " ".join(sorted({test for mutant in mutants for test in mutant.tests.split()}))
    if fails(chosen, tell=True):
        raise typer.BadParameter("a test fails without a mutant")
    started, survivors = time.monotonic(), 0
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, caught in zip(
            mutants, pool.map(lambda m: fails(m.tests, m), mutants), strict=True
        ):
            survivors += not caught
            print(
                f"{'caught  ' if caught else 'SURVIVED'}  {mutant.file:32}  {mutant.name}",
                flush=True,
            )
    seconds = time.monotonic() - started
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants were caught, in {seconds:.0f} s")
    raise typer.Exit(survivors > 0)


if __name__ == "__main__":
    typer.run(main)
