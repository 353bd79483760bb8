"""What tests may need and a machine may lack: a real data set, a GPU."""

import os

import pytest
from hypothesis import settings

# The same in every process, on every processor, and without timing which is faster.
os.environ.setdefault("HW3_PRECISION", "float32")

# How long one example takes says more about what else the machine does than about the code.
settings.register_profile("hw3lib", deadline=None)
settings.load_profile("hw3lib")


def pytest_runtest_setup(item):
    if mark := item.get_closest_marker("real_data"):
        from hw3lib import data

        try:
            data.load(*mark.args or ("mnist",))
        except data.DataError as error:
            pytest.skip(str(error))
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """With HW3_REQUIRE_DATA=1 a test on real data fails where it would be skipped."""
    report = yield
    required = os.environ.get("HW3_REQUIRE_DATA") == "1" and item.get_closest_marker("real_data")
    if report.skipped and required and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"HW3_REQUIRE_DATA=1 forbids to skip this: {report.longrepr[2]}"
    return report
