"""One cache for all experiments of a session, so that a network is trained once."""

import os

import pytest


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder that all workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "experiments"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def cache(shared_folder, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(shared_folder))
