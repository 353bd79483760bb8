"""The net that catches stale outputs has no holes: what must fail fails, what must pass passes."""

import os
import re
import shutil
import subprocess
import sys

import nbclient
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from book.conftest import DECIMAL, NOISE, Tolerant
from tests.book.notebooks import BOOK, GLUED, NOTEBOOKS, ROOT, execution_faults, read

SOURCES = [
    "'a semicolon suppresses the last value';",
    "split, bpd, epochs = 'test', 0.5251, 80\nprint(split, 'bpd', bpd, 'after', epochs, 'epochs')",
    f"""from IPython.display import display
display({{"{GLUED}text/plain": repr(0.6437)}}, raw=True)""",
    f"""import base64, os
png = "iVBORw0KGgo" + base64.b64encode(os.urandom(90)).decode()
display({{"{GLUED}image/png": png}}, raw=True)""",
    """import os
from IPython.display import display
display({"image/svg+xml": f"<svg >{os.urandom(9).hex()}</svg>"}, raw=True)""",
]
# What is replaced in the executed notebook (it stands in its outputs only), and whether nbval may
# then pass it.
CHANGES = {
    "unchanged": ("", "", True),
    "last_digit": ("bpd 0.5251", "bpd 0.5252", True),
    "printed_number": ("bpd 0.5251", "bpd 0.5304", False),
    "glued_number": ('"0.6437"', '"0.6501"', False),
    "integer": ("80 epochs", "81 epochs", False),
    "word": ("test bpd", "train bpd", False),
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> set[str]:
    """The changes with which `pytest --nbval` fails, beside the conftest of the book."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copy(BOOK / "conftest.py", folder)
    notebook = new_notebook(cells=[new_code_cell(source) for source in SOURCES])
    executed = nbformat.writes(nbclient.NotebookClient(notebook, kernel_name="python3").execute())
    for name, (old, new, _) in CHANGES.items():
        assert executed.count(old) == 1 or not old
        (folder / f"{name}.ipynb").write_text(executed.replace(old, new) if old else executed)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-rf", "--nbval", "--nbval-current-env"),
            f"--nbval-sanitize-with={ROOT / 'tests/book/nbval_sanitize.cfg'}",
        ],
        cwd=folder,
        # Without the settings that a surrounding pytest leaves to its children.
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout + result.stderr
    return set(re.findall(r"^FAILED (\w+)\.ipynb", result.stdout, re.MULTILINE))


@pytest.mark.parametrize("change", CHANGES)
def test_nbval_sees_a_changed_output(failed, change):
    passes = CHANGES[change][2]
    assert (change not in failed) == passes


def test_a_notebook_that_was_not_executed_is_found():
    notebook = new_notebook(cells=[new_code_cell(source) for source in SOURCES])
    assert execution_faults(notebook)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("loss 1.25 nats", "loss 1.25 nats", True),
        ("0.5251", "0.52514", True),
        ("103.2", "103.3", True),
        ("0.52", "0.53", False),
        ("1.25e-3", "1.27e-3", False),
        ("3.1e-16", "-8.8e-16", True),
        ("epoch 3", "epoch 4", False),
        ("-0.25", "0.25", False),
        ("1.0 2.0", "1.0", False),
        ("version 3.11.7", "version 3.11.8", False),
        ("run 49e29792", "run 49e29793", False),
        ("1e999", "1e999", True),
        ("nan", "0.1", False),
    ],
)
def test_tolerance(a, b, equal):
    assert (Tolerant(a) == Tolerant(b)) is equal
    assert (Tolerant(b) == Tolerant(a)) is equal


def outputs_as_text(path) -> list[str]:
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", [])]
    texts = [text for output in outputs for text in output.get("data", {}).values()]
    texts += [output.text for output in outputs if "text" in output]
    return [t for t in texts if isinstance(t, str) and not t.startswith(("iVBORw0KGgo", "<svg "))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_decimal_in_the_book_may_change_by_one_per_cent(path):
    for text in outputs_as_text(path):
        for match in DECIMAL.finditer(text):
            value = float(match[0])
            if abs(value) * 0.01 <= NOISE:
                continue
            # With what stands around it: an explorer's output has thousands of decimals.
            before, after = text[: match.start()][-40:], text[match.end() :][:40]
            changed = f"{before}{value * 1.01:.6e}{after}"
            assert Tolerant(before + match[0] + after) != Tolerant(changed), f"{match[0]} {after}"
