"""The repository behind the book: its address, and those of its files that pages show.

The address stands in pyproject.toml and reaches all copies from there.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Of the repository, where the package is used from a copy of it."""

FILES = (
    "pyproject.toml",
    "CITATION.cff",
    "README.md",
    "_config.yml",
    "book/*.md",
    "book/*.ipynb",
    "book/text/*.md",
)
"""Where copies of the address stand."""
GITHUB = re.compile(r"(?:https://github\.com/|git@github\.com:)([\w-]+/[\w.-]+?)(?:\.git)?/?")
PROJECT = r"[\w-]+(?:\.(?!git\b)[\w-]+)*"  # neither the dot that ends a sentence, nor .git
NAMED = re.compile(
    r"(?P<site>github\.com/|githubusercontent\.com/|/github/|/gh/)"
    rf"(?P<name>[\w-]+/{PROJECT})"
)
"""A repository, as GitHub itself, Colab and Binder name it."""
PAGES = re.compile(rf"https://[\w-]+\.github\.io(?:/{PROJECT})?")
"""A site that GitHub shows."""


def file(name: str) -> Path:
    """A file that pages show, in a copy of the repository or as the wheel installed it.

    Args:
        name: within the repository, such as book/claims.yml, or a path of one's own.

    Raises:
        ValueError: there is no such file.
    """
    for path in (Path(name), ROOT / name):
        if path.is_file():
            return path
    for installed in metadata.files("hw3lib") or ():
        if installed.match(f"share/hw3lib/{name}"):
            return Path(str(installed.locate()))
    raise ValueError(f"there is no file {name}, neither here nor in the repository of the book")


def address(root: Path) -> str:
    """The address of which this folder holds a copy.

    Raises:
        ValueError: the folder holds no such copy.
    """
    try:
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        return str(settings["project"]["urls"]["Repository"])
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{root} holds no copy of the book's repository ({error})") from error


def set_address(root: Path, url: str) -> list[Path]:
    """Write another address wherever the present one stands; returns the files that changed.

    Args:
        root: folder of the copy of the repository.
        url: on GitHub, as a browser or `git remote` shows it.

    Raises:
        ValueError: it is not the address of a repository on GitHub, or there is no copy.
    """
    old, new = name_of(address(root)), name_of(url)
    changed = []
    for path in files(root):
        text = path.read_text(encoding="utf-8")
        moved = NAMED.sub(lambda at: at["site"] + (new if at["name"] == old else at["name"]), text)
        moved = PAGES.sub(lambda at: pages(new) if at[0] == pages(old) else at[0], moved)
        if moved != text:
            path.write_text(moved, encoding="utf-8")
            changed.append(path)
    return changed


def files(root: Path) -> list[Path]:
    """The files that may hold the address."""
    return sorted(path for pattern in FILES for path in root.glob(pattern))


def name_of(url: str) -> str:
    """Owner and name of a repository on GitHub, such as hw3lib/hw3lib."""
    if not (found := GITHUB.fullmatch(url)):
        raise ValueError(
            f"{url!r} is not the address of a repository on GitHub, from where Colab opens "
            "notebooks; it looks like https://github.com/OWNER/NAME"
        )
    return found[1]


def pages(name: str) -> str:
    """Where GitHub shows the pages of a repository."""
    owner, project = name.split("/")
    return f"https://{owner.lower()}.github.io/{project}"
