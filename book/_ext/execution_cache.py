"""Key the execution cache on everything that a notebook's outputs depend on.

jupyter-cache compares the code cells alone: after a change in `hw3lib` it would serve the old
outputs. Here the cache's folder is named by a hash of the library's code, of the published results
that ship with it, and of the pinned versions. The folder's path is a setting of Sphinx's
environment, so when it changes, every page is read, executed and written anew.
"""

import hashlib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).parents[2]


def fingerprint(root: Path) -> str:
    """Sixteen hex digits that change when a file behind the notebooks' outputs changes."""
    library = root / "hw3lib"
    published = (path for path in library.glob("published/**/*") if path.is_file())
    digest = hashlib.sha256()
    for path in sorted({*library.rglob("*.py"), *published, root / "constraints.txt"}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def set_cache_path(_app: Sphinx, config: Config) -> None:
    """Name the cache's folder before MyST-NB reads where it is."""
    config.nb_execution_cache_path = str(ROOT / "_build" / ".jupyter_cache" / fingerprint(ROOT))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension; priority 10 comes before the other extensions' 500."""
    app.connect("config-inited", set_cache_path, priority=10)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
