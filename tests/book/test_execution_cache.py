"""The cache of executed notebooks follows what they read."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ = (
    "hw3lib/stats.py",
    "hw3lib/book/explorers/plane.js",
    "hw3lib/book/explorers/style.css",
    "hw3lib/published/claims/run.json",
    "book/claims.yml",
    "benchmarks/measured/cpu.json",
    "constraints.txt",
)


@pytest.fixture
def fingerprint(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import execution_cache

    yield execution_cache.fingerprint
    del sys.modules["execution_cache"]


@pytest.mark.parametrize("changed", READ)
def test_a_change_of_what_pages_read_is_noticed(changed, fingerprint, tmp_path):
    for name in READ:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    (tmp_path / changed).write_text("after")
    assert fingerprint(tmp_path) != before
