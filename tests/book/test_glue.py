"""A glued value has the format that MyST-NB's roles read, and needs no MyST-NB."""

import subprocess
import sys

from hw3lib.book.glue import MIME_PREFIX, without_checks
from tests.book.notebooks import outputs_of


def test_a_glued_value_is_stored_under_its_name():
    code = 'from hw3lib.book.glue import glue\nglue("test_bpd", 0.51234, ".3f")'
    (output,) = outputs_of(code)
    assert output.data == {f"{MIME_PREFIX}text/plain": "'0.512'"}
    assert output.metadata["scrapbook"] == {"name": "test_bpd", "mime_prefix": MIME_PREFIX}


def test_a_table_is_followed_by_its_source():
    code = (
        "import pandas as pd\nfrom hw3lib.book.glue import show_table\n"
        "show_table(pd.DataFrame({'a': [1]}), 'Run 01234567 · <cpu>')"
    )
    table, line = outputs_of(code)
    assert 'class="dataframe"' in table.data["text/html"]
    assert line.data["text/plain"] == "Run 01234567 · <cpu>"
    assert "Run 01234567 · &lt;cpu&gt;</details>" in line.data["text/html"]


def test_gluing_does_not_import_sphinx():
    heavy = "any(m in sys.modules for m in ('sphinx', 'myst_nb'))"
    code = f"import sys, hw3lib.book.glue; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_source_is_shown_without_docstring_and_checks_of_arguments():
    source = '''
def decide(x, low):
    """One line.

    Args:
        x: what.
    """
    check_radius("low", low)
    if low < 0:
        raise ValueError("below")
    if x > low:
        return "holds"
    return "a \\"text\\""
'''.strip()
    shown = without_checks(source)
    assert shown.splitlines() == [
        "def decide(x, low):",
        "    if x > low:",
        '        return "holds"',
        '    return "a \\"text\\""',
    ]
    compile(shown, "shown", "exec")


def test_a_class_of_nothing_but_a_docstring_keeps_it():
    source = 'class A(Exception):\n    """What went wrong."""'
    assert without_checks(source) == source
