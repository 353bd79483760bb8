"""Files from which an interrupted training goes on: whole, verified, and named in every message."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from hw3lib.files import write_whole
from hw3lib.runs.settings import OutOfTime
from hw3lib.training.progress import Parts, Progress

logger = logging.getLogger("hw3lib")

HEAD = b"hw3lib checkpoint\n"
"""How such a file begins; the SHA-256 of the rest follows."""

FOREIGN = b"PK"
"""How a file of `torch.save` begins, which somebody else has written."""

SCHEDULE = ("total_steps", "step_size", "gamma", "T_max", "total_iters")
"""What a scheduler is made with, and what loading its state would silently replace."""

ANOTHER_FILE = "pass another checkpoint file, or remove it to start over"


def save(path: Path | str, content: Any) -> None:
    """Write what `torch.save` can, with a digest; the old file or the new one is there, whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder) / "state.pt", {"epoch": 3})
        ...     load(Path(folder) / "state.pt")
        {'epoch': 3}
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).digest()
    write_whole(path, lambda part: part.write_bytes(HEAD + digest + payload))


def load(path: Path | str, device: torch.device | str = "cpu") -> Any:
    """What `save` wrote, on a device; None if there is no file.

    Of a training's checkpoint, also of an interrupted one, `load("run.pt")["model"]` is the last
    state of the model, and `load("run.pt")["progress"]["best_state"]` the best one.

    A damaged file is set aside beside its place, the log says so, and None is returned too: what
    it held is lost, but a new start is not barred.

    Raises:
        ValueError: the file is of another kind, and stays as it is.

    Example:
        >>> load(Path("nothing-here.pt")) is None
        True
    """
    path = Path(path)
    if not path.exists():
        return None
    content = path.read_bytes()
    begin = len(HEAD) + hashlib.sha256().digest_size
    payload = content[begin:]
    if content[:begin] == HEAD + hashlib.sha256(payload).digest():
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    if content.startswith(FOREIGN):
        raise ValueError(f"{path} is no checkpoint of hw3lib, and stays as it is; {ANOTHER_FILE}")
    aside = path.with_name(f"{path.name}.damaged")
    os.replace(path, aside)
    logger.warning(
        "%s is damaged: its bytes do not have the digest that they were written with. "
        "It is set aside as %s, and the run starts over",
        path,
        aside.name,
    )
    return None


class Keeper:
    """Keeps a training in a file: every few seconds, when it is interrupted, and at its end.

    What it writes is always the state after a whole epoch, from which a resumed run equals one
    that was not interrupted.

    Args:
        path: the file; None keeps nothing.
        parts: what is trained.
        epochs: how many are asked for.
        seconds: write no more often than this.
        asked: what else fixes the course of the training, such as its seed.
    """

    def __init__(
        self,
        path: Path | str | None,
        parts: Parts,
        epochs: int,
        seconds: float,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path) if path else None
        self.parts, self.epochs, self.seconds = parts, epochs, seconds
        groups = parts.optimizer.param_groups
        rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
        numbers = {n: getattr(parts.scheduler, n, None) for n in SCHEDULE}
        schedule = {name: number for name, number in numbers.items() if number is not None}
        self._asked = {"learning rates": rates} | dict(asked or {}) | {"schedule": schedule}
        self._why_not = "it was given no checkpoint file"
        self._held = 0  # epochs in the file
        self._latest: tuple[Progress, dict[str, Any]] | None = None  # not in the file yet
        self._written = time.monotonic()

    def resume(self) -> Progress | None:
        """Put the parts into the state of the file; None if they start anew.

        Raises:
            ValueError: the file is of another training.
        """
        stored = load(self.path, self.parts.device) if self.path else None
        if stored is None:
            return None
        try:
            progress = Progress(**stored["progress"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.path} holds no training; {ANOTHER_FILE}") from error
        if progress.epoch > self.epochs:  # it cannot be shortened, and must not be overwritten
            self._why_not = f"{self.path} is a longer run's"
            self.path = None
            return None
        for name, value in stored.get("asked", {}).items():
            if name in self._asked and self._asked[name] != value:
                raise ValueError(
                    f"{self.path} was written by a training with {name} {value}, and this one has "
                    f"{self._asked[name]}; {ANOTHER_FILE}"
                )
        try:
            self.parts.load(stored)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{self.path} was written by a training of another model, optimizer or scheduler; "
                f"{ANOTHER_FILE} ({error})"
            ) from error
        for state in (progress.best_state, *progress.snapshots.values()):
            state.update({key: value.cpu() for key, value in state.items()})
        self._held = progress.epoch
        if progress.epoch == self.epochs:
            held = f"already holds {progress.epoch} of {self.epochs} epochs"
            logger.info("nothing to do: %s %s", self.path, held)
        return progress

    def keep(self, progress: Progress, *, now: bool = False) -> None:
        """Take note of the state after an epoch; write it at once or if the last time is past."""
        if self.path:
            self._latest = progress, copy.deepcopy(self.parts.state())
            if now or time.monotonic() - self._written > self.seconds:
                self._write()

    def told(self) -> str:
        """What is kept, and how to go on."""
        if not self.path:
            return f"Nothing of it is kept, since {self._why_not}."
        if not self._held:
            return f"{self.path} holds nothing of it yet."
        return (
            f"{self.path} holds {self._held} of {self.epochs} epochs. "
            "Run the same command again to resume."
        )

    @contextlib.contextmanager
    def guarding(self, label: str) -> Iterator[None]:
        """Write what is not yet in the file when the block is interrupted, also by SIGTERM.

        Raises:
            FloatingPointError: the block's own, with what is kept.
        """
        try:
            with _terminable():
                yield
        except OutOfTime:
            raise
        except BaseException as error:
            kept = self._write_if_possible()
            if isinstance(error, FloatingPointError):
                raise FloatingPointError(f"{label}: {error} {kept}") from error
            if isinstance(error, KeyboardInterrupt | _Terminated):
                print(f"\n{label}: interrupted. {kept}", file=sys.stderr, flush=True)
            if isinstance(error, _Terminated):
                os.kill(os.getpid(), signal.SIGTERM)  # now as its sender meant it
            if self.path:
                error.add_note(f"{label}: {kept}")
            raise

    def _write(self) -> None:
        if self.path and self._latest:
            progress, parts = self._latest
            save(self.path, {"progress": vars(progress), "asked": self._asked} | parts)
            self._latest, self._held, self._written = None, progress.epoch, time.monotonic()

    def _write_if_possible(self) -> str:
        try:
            self._write()
        except OSError as error:
            return f"The last epochs could not be written ({error}). {self.told()}"
        return self.told()


class _Terminated(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, where nobody else handles it."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(_number: int, _frame: Any) -> NoReturn:
    raise _Terminated
