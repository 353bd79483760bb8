"""Freed memory is used again inside the block; without glibc nothing happens."""

import contextlib
import subprocess
import sys
import textwrap

import pytest

from hw3lib.training import memory

glibc_only = pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")

COUNT = """
    import contextlib, resource, torch
    from hw3lib.training import memory

    def faults(rounds=5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(rounds):
            torch.ones(2**24)  # 64 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    torch.set_num_threads(1)
    faults()
    outside = faults()
    with memory.kept():
        with contextlib.suppress(ZeroDivisionError), memory.kept():
            faults(20)  # until freed blocks have grown together
            1 / 0
        inside = faults()  # the inner block ended, the outer one did not
    print(outside, inside)
"""


@glibc_only
def test_freed_memory_is_used_again_until_the_outermost_block_ends():
    script = [sys.executable, "-c", textwrap.dedent(COUNT)]
    run = subprocess.run(script, check=True, capture_output=True, text=True)
    outside, inside = map(int, run.stdout.split())
    pages = 5 * 2**26 // 4096
    assert outside > 0.9 * pages
    assert inside < 0.1 * pages


def test_glibc_is_set_once_for_nested_blocks_and_set_back_after_an_error(monkeypatch):
    done = []
    monkeypatch.setattr(memory, "_set", done.append)
    with contextlib.suppress(KeyError), memory.kept(), memory.kept():
        assert done == [memory._KEEP]
        raise KeyError
    assert done == [memory._KEEP, memory._RETURN]


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with memory.kept():
        pass
