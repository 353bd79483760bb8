"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> str:
    """Write a file so that it appears whole or not at all; returns its SHA-256."""
    part = path.with_name(f".{os.getpid()}.{path.name}")
    write(part)
    digest = sha256(part)
    os.replace(part, path)
    return digest


def sha256(path: Path) -> str:
    """Digest of a file's bytes, in hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
