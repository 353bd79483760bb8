"""Memory that a computation frees is kept for its next step.

The C library hands large blocks back to the system as soon as they are freed, and every training
step would ask for all of them again, page by page, zeroed by the kernel. On two CPU cores that is a
quarter to a third of a step.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any

# The parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4

_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**28}

# What glibc comes to by itself in a process that frees large blocks (mallopt(3)).
_RETURN = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17}

_inside = 0


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep what is freed in the block; after the outermost one it can go back to the system.

    Does nothing where the C library is not glibc.
    """
    global _inside
    if _inside == 0:
        _set(_KEEP)
    _inside += 1
    try:
        yield
    finally:
        _inside -= 1
        if _inside == 0:
            _set(_RETURN)


def _set(values: dict[int, int]) -> None:
    if (library := _glibc()) is not None:
        for parameter, value in values.items():
            library.mallopt(parameter, value)


@cache
def _glibc() -> Any:
    """The C library if it has what is needed, else None."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # as on Windows
        return None
    needed = ("mallopt", "gnu_get_libc_version")
    return library if all(hasattr(library, name) for name in needed) else None
