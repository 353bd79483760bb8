"""Key the execution cache on everything that a notebook's outputs depend on.

jupyter-cache compares the code cells alone: after a change in `hw3lib` it would serve the old
outputs. Here the cache's folder is named by a hash of the library's code, of the published results
that ship with it, of the claims and timings that pages read, and of the pinned versions. The
folder's path is a setting of Sphinx's environment, so when it changes, every page is read, executed
and written anew.

MyST-NB executes the notebooks that it does not find in the cache, one after the other. Here they
are executed before it looks, one on each core. What fails is left to MyST-NB, which reports it.

With `HW3_BOOK_EXECUTION=off` in the environment nothing is executed, and the pages show the outputs
that the notebooks were committed with.
"""

import hashlib
import os
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).parents[2]


def fingerprint(root: Path) -> str:
    """Sixteen hex digits that change when a file behind the notebooks' outputs changes."""
    library = root / "hw3lib"
    read = {
        *(path for path in library.glob("published/**/*") if path.is_file()),
        *(path for kind in ("py", "js", "css") for path in library.rglob(f"*.{kind}")),
        *root.glob("benchmarks/measured/*.json"),
        *root.glob("book/*.yml"),
        root / "constraints.txt",
    }
    digest = hashlib.sha256()
    for path in sorted(read):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def set_cache_path(_app: Sphinx, config: Config) -> None:
    """Name the cache's folder, and say whether to execute, before MyST-NB reads either."""
    config.nb_execution_mode = os.environ.get("HW3_BOOK_EXECUTION", config.nb_execution_mode)
    config.nb_execution_cache_path = str(ROOT / "_build" / ".jupyter_cache" / fingerprint(ROOT))


def fill_cache(_app: Sphinx, config: Config) -> None:
    """Execute the notebooks that are not in the cache."""
    if config.nb_execution_mode != "cache":
        return
    cache = get_cache(config.nb_execution_cache_path)
    for notebook in sorted((ROOT / "book").glob("*.ipynb")):
        cache.add_nb_to_project(str(notebook))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the notebooks share the cores
    load_executor("local-parallel", cache).run_and_cache(timeout=config.nb_execution_timeout)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension; the other extensions have priority 500."""
    app.connect("config-inited", set_cache_path, priority=10)
    app.connect("config-inited", fill_cache, priority=1000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
