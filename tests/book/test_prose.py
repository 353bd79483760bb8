"""Numbers in the prose come from runs: a decimal is glued, or it is the report's."""

import re

import pytest

from hw3lib.files import unsealed
from hw3lib.runs.store import PUBLISHED
from tests.book.notebooks import NOTEBOOKS, code_cells, prose, read

# A formula may hold constants that were chosen or worked out by hand; code and roles are no prose.
NOT_PROSE = re.compile(
    r"(?P<fence>`{3,}|:{3,})\{math\}.*?(?P=fence)|(?P<code>`{3,})(?:python|bash)?\n.*?(?P=code)"
    r"|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`",
    re.DOTALL,
)
# A heading or a sentence may name a question: "# 1.8 Train the VAE", "question 2.3".
QUESTION = re.compile(r"(?:^#+ |[Qq]uestions? )[12]\.\d+", re.MULTILINE)
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+")


def typed_decimals(text: str) -> list[str]:
    """Decimals that somebody typed into the prose, and that the report does not have."""
    report = unsealed(PUBLISHED / "report.json").values()
    quoted = {float(number["value"]) for number in report}
    quoted |= {100 * value for value in quoted}
    bare = QUESTION.sub("", NOT_PROSE.sub("", text))
    return [d for d in DECIMAL.findall(bare) if not any(abs(float(d) - q) < 1e-9 for q in quoted)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_number_in_the_prose_was_typed(path):
    assert typed_decimals(prose(read(path))) == []


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.stem.startswith(("q2_", "why_"))], ids=lambda path: path.stem
)
def test_no_paragraph_of_part_2_is_a_wall_of_numbers(path):
    paragraphs = re.split(r"\n\s*\n", prose(read(path)))
    assert [text for text in paragraphs if text.count("{glue:text}") > 4] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The test value is 0.518 bits.", ["0.518"]),
        ("It is {glue:text}`test` bits, the report has 0.56 and 13.76 %.", []),
        ("# 1.8 Training\n\nQuestion 2.3 asks; with $s = 0.3$ and `-p beta 0.5`.", []),
        ("The ratio is 1.8 on question 1.8.", ["1.8"]),
        ("```python\nx = 0.25\n```\nAnd 12.5 after it.", ["12.5"]),
    ],
)
def test_typed_decimals_are_found_and_others_are_not(text, found):
    assert typed_decimals(text) == found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_name_of_a_glued_number_can_be_searched_for(path):
    """It stands as a literal in the code that computes it, not as an f-string."""
    page = read(path)
    code = "\n".join(cell.source for cell in code_cells(page))
    named = set(re.findall(r"\{glue:text\}`([^`]+)`", prose(page)))
    assert {name for name in named if f'"{name}"' not in code} == set()
