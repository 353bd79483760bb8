"""Files that appear whole or not at all, on which one process at a time works."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

logger = logging.getLogger("hw3lib")


def user_folder(variable: str, name: str) -> Path:
    """The folder that an environment variable names, else one in the user's cache directory.

    Raises:
        OSError: there is neither the variable nor a home directory.
    """
    if asked := os.environ.get(variable):
        return Path(asked).expanduser()
    folder = platformdirs.user_cache_path("hw3lib") / name
    if not folder.is_absolute():
        raise OSError(f"this user has no home directory; set {variable} to a folder")
    return folder


def write_whole(path: Path, write: Callable[[Path], Any]) -> str:
    """Write a file so that it appears whole or not at all; returns its SHA-256."""
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(part)
        digest = sha256(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return digest


def sha256(path: Path) -> str:
    """Digest of a file's bytes, in hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sealed(content: Mapping[str, Any]) -> str:
    """JSON text of a content with the digest of that under `digest`.

    A digest notices what was altered by accident or by hand; it is no signature.

    Raises:
        TypeError, ValueError: JSON cannot hold the content, such as a NaN.
    """
    plain = json.loads(json.dumps(content, allow_nan=False))
    return json.dumps(plain | {"digest": _digest(plain)}, indent=1) + "\n"


def unsealed(path: Path) -> dict[str, Any]:
    """The content of a file of `sealed` text, without its digest.

    Raises:
        OSError, ValueError: it is not readable JSON, or its digest is missing or does not fit.
    """
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict) or "digest" not in content:
        raise ValueError("it has no digest; it is of an older version, or of another kind")
    if content.pop("digest") != _digest(content):
        raise ValueError("it was altered since it was stored: its digest does not fit")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    """However JSON lays a content out, the same numbers have the same."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def acquire(lock: Path, busy: str, timeout: float = -1) -> tuple[AbstractContextManager[Any], bool]:
    """Wait until no other process holds a lock, and say so; a killed process holds none.

    Args:
        lock: an empty file, which stays; its folder is made.
        busy: what the other process does, for the log.
        timeout: seconds; without end below 0.

    Returns:
        What releases the lock at the end of its `with` block, and whether it had to wait.

    Raises:
        TimeoutError: the other process was not ready in time.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        return held.acquire(timeout=0), False
    except Timeout:
        logger.warning("another process %s; waiting until it is done", busy)
    return held.acquire(timeout=timeout), True


def remove_parts(path: Path) -> None:
    """Remove what killed processes left half-written of a file and of those beside it.

    Only for the holder of their lock: for it, nobody else is still writing them.
    """
    for pattern in (f".*.{path.stem}.*", f"{path.stem}.*.part"):
        for part in path.parent.glob(pattern):
            part.unlink(missing_ok=True)
