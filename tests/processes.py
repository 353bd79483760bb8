"""Processes that start at once: forks of one that has imported the library."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["hw3lib.experiments.catalog"])


def pool(jobs, _context, initializer):
    """A pool of such processes, with the environment of the moment."""
    initargs = (dict(os.environ), initializer)
    return ProcessPoolExecutor(jobs, FORKS, initializer=_adopt, initargs=initargs)


def _adopt(environment, initializer):
    os.environ.clear()
    os.environ.update(environment)
    initializer()
