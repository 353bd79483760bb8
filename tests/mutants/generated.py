"""Change each expression of a module by machine, and see that a test fails: `make mutation`.

mutmut makes the mutants and runs, for each, the tests that reach the changed function, until one
fails. Here is only what it lacks: a copy of the checkout that shares what is not mutated, the tests
of each module, functions with decorators, a sample of stated size, and a list of survivors.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import libcst as cst
import mutmut.mutation.file_mutation as mutation
import typer
import yaml
from mutmut.__main__ import _run
from mutmut.configuration import config, reset_config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name
from mutmut.workers.isolation import ForkServerRunner

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

ALL = [""]
CAUGHT = {"killed", "timeout", "segfault"}


def run_quick_tests_first() -> None:
    """Have mutmut order the tests of a mutant by how long they take; the first that fails ends."""
    arguments = PytestRunner._pytest_args_regular_run

    def ordered(self: PytestRunner, tests: Iterable[str]) -> list[str]:
        return arguments(self, sorted(tests, key=lambda t: state().duration_by_test.get(t, 0.0)))

    PytestRunner._pytest_args_regular_run = ordered
    # That they pass unchanged was seen just before, when it was recorded what each reaches.
    ForkServerRunner.run_clean_tests = lambda self, tests: 0


def mutate_decorated_functions() -> None:
    """Have mutmut change functions with decorators, too, which it leaves out by default.

    The switch between a function and its mutants goes below the decorators, so the copies that it
    chooses from have none. What holds a `classmethod` with others around it stays left out.
    """
    skip = mutation.MutationVisitor._skip_node_and_children
    arrange = mutation.function_trampoline_arrangement

    def skip_fewer(self: Any, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return len(node.decorators) > 1 or "abstractmethod" in _code(node.decorators[0])
        return skip(self, node)

    def arrange_bare(function: cst.FunctionDef, mutants: Any, class_name: str | None) -> Any:
        first, nodes, last, names = arrange(function, mutants, class_name)
        if function.decorators and _code(function.decorators[0]) not in (
            "@classmethod",
            "@staticmethod",
        ):
            nodes = [nodes[0], *(node.with_changes(decorators=()) for node in nodes[1:])]
        return first, nodes, last, names

    mutation.MutationVisitor._skip_node_and_children = skip_fewer
    mutation.function_trampoline_arrangement = arrange_bare


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node).strip()


def prepare(module: str, tests: list[str]) -> None:
    """Go to a folder in which mutmut finds the package, and tests the rest of the checkout."""
    work = ROOT / "build" / "mutation" / module.removesuffix(".py").replace("/", ".")
    shutil.rmtree(work, ignore_errors=True)
    kept = shutil.ignore_patterns("published", "__pycache__")
    shutil.copytree(ROOT / "hw3lib", work / "hw3lib", ignore=kept)
    shared = work / "mutants"
    (shared / "hw3lib").mkdir(parents=True)
    (shared / "hw3lib" / "published").symlink_to(ROOT / "hw3lib" / "published")
    for path in ROOT.iterdir():
        if path.name not in ("hw3lib", "pyproject.toml", "build") and path.name[0] not in "._":
            (shared / path.name).symlink_to(path)
    shutil.copy(ROOT / "pyproject.toml", work)
    os.chdir(work)
    reset_config()
    config().only_mutate = [module, f"{module}/*.py"]
    first = next((i for i, word in enumerate(tests) if word.startswith("-")), len(tests))
    config().pytest_add_cli_args_test_selection = tests[:first]
    config().pytest_add_cli_args += tests[first:]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(shared), *sys.path])  # for processes of tests


def mutants_of(module: str) -> dict[str, Path]:
    """All mutants of a module or package, in the order of their lines, with their files."""
    path = Path(module)
    return {
        get_mutant_name(file, name): file
        for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])
        for name in mutation.mutate_file_contents(str(file), file.read_text("utf-8")).mutant_names
    }


def statuses(files: Iterable[Path]) -> dict[str, str]:
    """What became of the mutants of some files."""
    found = {}
    for path in files:
        results = SourceFileMutationData(path=path)
        results.load()
        codes = results.exit_code_by_key
        found |= {name: status_by_exit_code[code] for name, code in codes.items()}
    return found


def main(
    module: Annotated[str, typer.Argument(help="file or folder, such as hw3lib/stats.py")],
    sample: Annotated[int, typer.Option(help="mutants drawn at random; 0: all")] = 0,
    seed: Annotated[int, typer.Option(help="of the sample")] = 0,
    only: Annotated[list[str], typer.Option(help="mutants whose name contains this")] = ALL,
) -> None:
    """Run the mutants of a module; print the changes that no test noticed, and the figures."""
    tests = yaml.safe_load((HERE / "modules.yml").read_text(encoding="utf-8"))
    if module not in tests:
        raise typer.BadParameter(f"{module!r} is none of {', '.join(tests)}")
    prepare(module, shlex.split(tests[module]))
    mutate_decorated_functions()
    run_quick_tests_first()
    files = mutants_of(module)
    names = [name for name in files if any(part in name for part in only)]
    if sample and sample < len(names):
        names = sorted(random.Random(seed).sample(names, sample), key=names.index)
    _run(names, 1)

    status = statuses(set(files.values()))
    survivors = [name for name in names if status[name] not in CAUGHT]
    for name in survivors:
        print(f"\n# {name}: {status[name]}\n{get_diff_for_mutant(name, path=files[name])}")
    caught = len(names) - len(survivors)
    print(f"{module}: {caught} of {len(names)} mutants caught, {caught / len(names):.1%}")


if __name__ == "__main__":
    typer.run(main)
