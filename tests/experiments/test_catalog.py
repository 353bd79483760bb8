"""The list of what ships: quick to read."""

import json
import subprocess
import sys

SLOW = {"matplotlib", "pandas", "scipy.ndimage", "scipy.stats", "sklearn", "torchvision"}
"""What only a computation or a picture needs; together they take longer to import than torch."""


def test_the_catalog_imports_nothing_that_only_a_computation_needs():
    code = "import json, sys, hw3lib.experiments.catalog; print(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-c", code]
    imported = set(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    assert "torch" in imported
    assert not imported & SLOW
