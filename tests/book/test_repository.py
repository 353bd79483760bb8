"""The repository's address stands in one place; whatever else names it agrees."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hw3lib import cli
from hw3lib.book import repository
from tests.book.notebooks import NOTEBOOKS, ROOT, code_cells, read

OURS = repository.address(ROOT)
# Sites of others that the book links to, and the placeholder of an address.
FOREIGN = {"https://mml-book.github.io", "https://github.com/OWNER/NAME"}
INSTALL = f"""import importlib.util
import os

if importlib.util.find_spec("hw3lib") is None:
    spec = "hw3lib @ git+{OURS}"
    spec = os.environ.get("HW3LIB_SPEC", spec)
    get_ipython().run_line_magic("pip", f"install -q '{{spec}}'")"""


def invoke(*words):
    return CliRunner().invoke(cli.app, ["book", "set-repository", *words])


def names_in(text):
    """Repositories and sites on GitHub that a text names."""
    named = {f"https://github.com/{at['name']}" for at in repository.NAMED.finditer(text)}
    return named | {at[0] for at in repository.PAGES.finditer(text)}


def tracked():
    """Text files that belong to the repository, this file of examples aside."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if path.suffix in {".npz", ".png", ".safetensors", ".json"} or path == Path(__file__):
            continue
        if path.is_file():
            yield path


@pytest.fixture
def copy(tmp_path):
    """The files that name the repository, elsewhere."""
    for path in repository.files(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def contents(root):
    return {path: path.read_bytes() for path in repository.files(root)}


def test_no_copy_of_the_address_differs_and_none_stands_where_it_would_stay():
    expected = {OURS, repository.pages(repository.name_of(OURS))} | FOREIGN
    reached = set(repository.files(ROOT))
    for path in tracked():
        found = names_in(path.read_text(encoding="utf-8"))
        assert found <= expected, path
        assert path in reached or found <= FOREIGN, path


def test_every_notebook_installs_from_it_by_the_same_cell():
    first = {path.stem: code_cells(read(path))[0].source for path in NOTEBOOKS}
    assert [name for name, source in first.items() if not source.startswith(INSTALL)] == []


def test_the_book_and_its_citation_name_it():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["repository"]["url"] == OURS
    assert config["html"]["baseurl"] == repository.pages(repository.name_of(OURS))
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == OURS


def test_another_address_reaches_every_copy_and_the_old_one_brings_all_back(copy):
    before = contents(copy)
    done = invoke("https://github.com/some-school/vae.2026", "--book", str(copy / "book"))
    assert done.exit_code == 0, done.output
    found = set().union(*(names_in(text.decode()) for text in contents(copy).values()))
    assert found - FOREIGN == {
        "https://github.com/some-school/vae.2026",
        "https://some-school.github.io/vae.2026",
    }
    changed = sum(text != before[path] for path, text in contents(copy).items())
    assert f"{changed} files changed" in done.output
    assert changed > 2 * len(NOTEBOOKS)
    invoke(OURS, "--book", str(copy / "book"))
    assert contents(copy) == before


@pytest.mark.parametrize("form", ["https://github.com/a/b", "https://github.com/a/b.git"])
@pytest.mark.parametrize("end", ["", "/"])
def test_an_address_may_be_written_as_browsers_and_git_do(copy, form, end):
    repository.set_address(copy, form + end)
    assert repository.address(copy) == "https://github.com/a/b"
    repository.set_address(copy, "git@github.com:c/d.git")
    assert repository.address(copy) == "https://github.com/c/d"


def test_github_actions_know_it_by_themselves(copy, monkeypatch):
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "fork/book")
    assert invoke("--book", str(copy / "book")).exit_code == 0
    assert repository.address(copy) == "https://github.com/fork/book"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["https://gitlab.com/a/b"], "is not the address of a repository on GitHub"),
        (["a/b"], "is not the address of a repository on GitHub"),
        ([], "give the URL"),
    ],
)
def test_what_is_no_address_changes_nothing(copy, monkeypatch, words, message):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    before = contents(copy)
    done = invoke(*words, "--book", str(copy / "book"))
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert message in line
    assert contents(copy) == before


def test_a_file_of_ones_own_goes_before_the_repositorys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repository.file("book/claims.yml") == ROOT / "book/claims.yml"
    (tmp_path / "book").mkdir()
    (tmp_path / "book/claims.yml").touch()
    assert repository.file("book/claims.yml").resolve() == tmp_path / "book/claims.yml"
    with pytest.raises(ValueError, match=r"no file mine\.yml"):
        repository.file("mine.yml")


def test_a_folder_that_is_no_copy_is_named(tmp_path):
    done = invoke("https://github.com/a/b", "--book", str(tmp_path / "book"))
    assert done.exit_code == 1
    assert re.match(rf"hw3: {re.escape(str(tmp_path))} holds no copy", done.stderr)
