"""The student edition: nothing of ours is left in it, and its tests tell right from wrong."""

import ast
import re

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from typer.testing import CliRunner

from hw3lib import cli
from hw3lib.book import student
from tests.book.notebooks import BOOK, code_cells, execution_faults, prose, tags

TEXTS = sorted(BOOK.glob(f"text/{student.QUESTIONS}"))
every_question = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)

# For each function that a student writes, what classic mistakes make of our solution.
MISTAKES = {
    "sample_pixels": [(">=", "<"), (" / temperature", ""), (".softmax(1)", ".sigmoid()")],
    "log_mean_exp": [
        ("- math.log(log_lik.shape[-1])", ""),
        ("logsumexp(-1)", "exp().sum(-1).log()"),
    ],
    "elbo_samples": [
        ("log_joint - log_q", "log_joint + log_q"),
        (" + log_normal(z)", ""),
        ("log_std.exp() * noise", "noise"),
    ],
    "naive_bound": [
        ("- math.log(k)", ""),
        ("logsumexp(0) - math.log(k)", "mean(0)"),
        ("log_joint - ", "log_joint + "),
        ("+ log_normal(z)", ""),
    ],
    "gaussian_kl": [(" - 1)", ")"), ("2 * log_std", "log_std"), ("- log_std", "+ log_std")],
    "log_ratios": [("- log_prior", "+ log_prior"), ("log_std.exp()", "log_std"), ("mean + ", "")],
    "pathwise_gradients": [("slope * std * noise", "slope * noise"), ("mean + std", "mean + 1")],
    "score_terms": [("noise / std", "noise * std"), ("noise.square() - 1", "noise.square()")],
    "batch_loss": [
        ("nll + kl", "nll - kl"),
        (".sum(1)", ".mean(1)"),
        ("log_std.exp()", "log_std"),
        ("(nll + kl).mean()", "(nll / 784 + kl).mean()"),
    ],
    "kernel_distance_by_loops": [(" if a is not b", ""), ("- 2 *", "-"), (" / len(a)", "")],
    "grid_codes": [("ticks[::-1]", "ticks"), (" + 0.5", ""), ("[z1, z2]", "[z2, z1]")],
    "beta_loss": [("beta * ", ""), ("kl.sum(1)", "kl.mean(1)"), (").mean()", ").sum()")],
    "adversarial_loss": [
        ("(1 - alpha)", "alpha"),
        ("attacked), y", "x), y"),
        ("alpha * clean", "(1 - alpha) * clean"),
    ],
    "joined_batch_loss": [
        ("torch.cat([y, y])", "y.repeat_interleave(2)"),
        ("model(joined)", "torch.cat([model(x), model(joined[len(x) :])])"),
    ],
    "fgsm_by_hand": [(".sign()", ""), (".clamp(0, 1)", ""), ("x + eps", "x - eps")],
    "pgd_by_hand": [
        ("(model, point, y)", "(model, x, y)"),
        ("point = (point +", "point = (x +"),
        (".clamp(min=0)", ""),
        (".clamp(lower, upper)", ".clamp(0, 1)"),
        ("range(steps)", "range(1)"),
    ],
}


def edition_of(path, **options):
    return student.edition(path.read_text(encoding="utf-8"), path.stem, **options)


def run_tests(notebook, change=("", "")):
    """Run the tests of a notebook with nothing but its imports and solutions."""
    names: dict = {}
    for cell in code_cells(notebook):
        if {"solution", "test"} & {*tags(cell)}:
            exec(cell.source.replace(*change) if change[0] else cell.source, names)
        elif "remove-cell" not in tags(cell):
            imports = ast.Module([s for s in ast.parse(cell.source).body if is_import(s)], [])
            exec(compile(imports, "imports", "exec"), names)


def is_import(statement):
    return isinstance(statement, ast.Import | ast.ImportFrom)


def solutions(notebook):
    """Source of each function to write, by name."""
    cells = [cell for cell in code_cells(notebook) if "solution" in tags(cell)]
    functions = [(cell, node) for cell in cells for node in ast.parse(cell.source).body]
    return {node.name: ast.get_source_segment(cell.source, node) for cell, node in functions}


@every_question
def test_every_function_to_write_fails_its_test_until_it_is_written(path):
    unfilled, solved = edition_of(path), edition_of(path, solved=True)
    assert list(solutions(unfilled)) == list(solutions(solved))
    assert solutions(unfilled)
    with pytest.raises(NotImplementedError):
        run_tests(unfilled)
    run_tests(solved)


@every_question
def test_a_test_fails_for_each_function_alone_and_for_classic_mistakes(path):
    solved = edition_of(path, solved=True)
    for name, source in solutions(solved).items():
        with pytest.raises(NotImplementedError):
            run_tests(solved, (source, student.opened(source)))
        for old, new in MISTAKES[name]:
            assert old in source, (name, old)
            with pytest.raises(AssertionError):
                run_tests(solved, (source, source.replace(old, new)))


@every_question
def test_nothing_of_ours_is_left(path):
    text, notebook = path.read_text(encoding="utf-8"), edition_of(path)
    left = prose(notebook) + "\n".join(cell.source for cell in code_cells(notebook))
    assert not re.search(r"\{solution|\{dropdown\} Reveal", left)
    assert [line for line in answers(text) if line in left] == []
    assert not any(cell.get("outputs") for cell in notebook.cells)


def answers(text):
    """Long lines of what answers: the opening box, reveals, the summary, solutions."""
    end, found = "", []
    for line in text.splitlines():
        if begin := re.match(r"(`{3,}|:{3,})\{(?:solution\}|dropdown\} Reveal)", line):
            end = begin[1]
        elif line == ":class: question":
            end = ":::"
        elif line == "## Summary":
            end = "## Exercises"
        elif "{solution-start}" in line:
            end = "```{solution-end}"
        elif line == end:
            end = ""
        elif end and len(line) > 40 and not line.startswith(":"):
            found.append(line)
    assert len(found) > 10
    return found


@every_question
def test_no_code_follows_the_exercises(path):
    cells = edition_of(path).cells
    (start,) = [i for i, cell in enumerate(cells) if "## Exercises" in cell.source]
    assert not code_cells(nbformat.v4.new_notebook(cells=cells[start:]))


@every_question
def test_each_exercise_has_a_place_for_its_answer_and_nbgrader_knows_it(path):
    notebook = edition_of(path)
    nbformat.validate(notebook)
    exercises = re.findall(r"\{exercise(?:-start)?\}", prose(notebook))
    answers = [cell for cell in notebook.cells if "answer" in tags(cell)]
    assert len(answers) == len(exercises) + 1  # the summary
    graded = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert len({mark.grade_id for mark in graded}) == len(graded)
    tests = [mark for mark in graded if mark.grade and not mark.solution]
    assert tests
    assert all(mark.points == 1 and mark.locked for mark in tests)


@pytest.mark.long
@pytest.mark.parametrize("name", ["q1_03_elbo", "q1_07_reparameterisation"])
def test_a_notebook_runs_up_to_the_first_gap_and_filled_to_its_end(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path,) = [path for path in TEXTS if path.stem == name]
    unfilled = edition_of(path)
    with pytest.raises(CellExecutionError, match="NotImplementedError"):
        NotebookClient(unfilled, timeout=300).execute()
    (failed,) = [c for c in code_cells(unfilled) if any("ename" in out for out in c.outputs)]
    assert "test" in tags(failed)
    solved = NotebookClient(edition_of(path, solved=True), timeout=300).execute()
    assert execution_faults(solved) == []


def test_the_command_writes_every_question_and_says_so(tmp_path):
    done = CliRunner().invoke(cli.app, ["book", "student", str(tmp_path / "course")])
    assert done.exit_code == 0, done.output
    written = sorted(path.stem for path in (tmp_path / "course").glob("*.ipynb"))
    assert written == [path.stem for path in TEXTS]
    assert len(written) == 14


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["full"], "full exists and is not an empty folder"),
        (["file"], "file exists and is not an empty folder"),
        (["new", "--book", "."], "is not the book"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    (tmp_path / "file").touch()
    done = CliRunner().invoke(cli.app, ["book", "student", *words])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


CELL = """```{{code-cell}} ipython3
:tags: [{tag}]

{code}
```
"""


def test_a_solution_without_a_test_or_a_docstring_is_refused():
    function = "def f(x):\n    '''Twice x.'''\n    return 2 * x"
    untested = CELL.format(tag="solution", code=function)
    with pytest.raises(ValueError, match="f has no test_f"):
        student.edition(untested, "page")
    test = CELL.format(tag="test", code="def test_f():\n    assert f(2) == 4\n\n\ntest_f()")
    opened, _ = student.edition(untested + "\n" + test, "page").cells
    assert opened.source.endswith("# YOUR CODE HERE\n    raise NotImplementedError()")
    bare = CELL.format(tag="solution", code="def f(x):\n    return 2 * x")
    with pytest.raises(ValueError, match="needs a docstring"):
        student.edition(bare + "\n" + test, "page")
    stray = CELL.format(tag="solution", code="x = 3")
    with pytest.raises(ValueError, match="holds functions only, not x = 3"):
        student.edition(stray, "page")


def test_a_function_of_the_library_that_a_page_shows_becomes_one_to_write():
    cells = [
        ("hide-input", "from hw3lib.vae.bounds import gaussian_kl, log_normal"),
        ("solution", "show_source(gaussian_kl, log_normal)"),
        ("test", "def test_gaussian_kl():\n    assert gaussian_kl(0, 0) == 0"),
    ]
    text = "\n".join(CELL.format(tag=tag, code=code) for tag, code in cells)
    _, opened, _ = student.edition(text, "page").cells
    assert opened.source.startswith("def gaussian_kl(mean, log_std):\n")
    assert "square" not in opened.source
    assert "log_normal" not in opened.source
