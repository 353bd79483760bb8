"""What `pytest --nbval book` compares: text exactly, decimals up to rounding.

Two processors add floating-point numbers in different orders, so the last printed digit of a
result may differ. A change of 1 % is never rounding and always fails.
"""

import os
import re
import tempfile

from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

RELATIVE = 1e-3
# One unit in the last printed digit is forgiven where it is less than half a per cent: 0.525 may
# become 0.526, but 0.52 may not become 0.53. So print at least three digits.
LAST_DIGIT = 5e-3
# Below this, a float64 result of order one is nothing but rounding noise.
NOISE = 1e-12

# 0.25, -3., .5, 1e-3, 2.5E+4; not an integer, and not a part of a version or a name (1.2.3, a1.5).
# A longer exponent than three digits is the key of a run (49e29792).
DECIMAL = re.compile(
    r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d{1,3})?(?![\w.]*\w)"
)


class Tolerant(str):
    """Text that equals another one if only its decimals differ, and those by rounding alone."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        ours, theirs = DECIMAL.findall(self), DECIMAL.findall(other)
        return DECIMAL.split(self) == DECIMAL.split(other) and all(
            same_decimal(a, b) for a, b in zip(ours, theirs, strict=True)
        )

    def __ne__(self, other: object) -> bool:
        return not self == other


def same_decimal(a: str, b: str) -> bool:
    """Whether two printed decimals differ by no more than rounding."""
    if a == b:
        return True
    x, y = float(a), float(b)
    size = max(abs(x), abs(y))
    last_digit = min(last_digit_of(a), last_digit_of(b))
    allowed = max(RELATIVE * size, min(last_digit, LAST_DIGIT * size), NOISE)
    return abs(x - y) <= allowed * (1 + 1e-9)


def last_digit_of(number: str) -> float:
    """One unit in the last printed place: 0.01 for "1.25", 10 for "1.2e2"."""
    mantissa, _, exponent = number.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def pytest_configure():
    """Start without a cache of runs; change nbval itself, since its cells take no fixtures."""
    # A reader's cache is empty: a run that is not published must not be found here either.
    os.environ["HW3_CACHE"] = tempfile.mkdtemp(prefix="hw3-empty-cache-")
    sanitize = IPyNbCell.sanitize

    def tolerant(self, s):
        s = sanitize(self, s)
        return Tolerant(s) if isinstance(s, str) else s

    def execute(self, cell_input, allow_stdin=None):
        # nbval keeps cells out of the history, which is where IPython looks for the semicolon that
        # suppresses a cell's last value.
        return self.kc.execute(cell_input, allow_stdin=allow_stdin, stop_on_error=False)

    IPyNbCell.sanitize = tolerant
    RunningKernel.execute_cell_input = execute
