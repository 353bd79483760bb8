"""Each notebook alone, as Colab runs it: an empty folder, and an environment without hw3lib.

The environment has what hw3lib asks for and a kernel, as Colab has, and no package index. The first
cell of the notebook installs hw3lib from its wheel.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.book.notebooks import NOTEBOOKS, ROOT, execution_faults, read

SAMPLE = {"q1_03_elbo", "q2_1_attacks"}
"""Those that `make test-long` runs; `make colab` runs all."""
OF_COLAB = ["ipykernel", "ipywidgets", "nbclient", "pip", "setuptools"]

pytestmark = pytest.mark.colab


def closure(wanted):
    """The distributions that these requirements name, and all that those need."""
    found, left = {}, [*wanted]
    while left:
        need = left.pop()
        distribution = metadata.distribution(need.name)
        for extra in {"", *need.extras} - found.setdefault(distribution.name, set()):
            found[distribution.name].add(extra)
            needs = map(Requirement, distribution.requires or [])
            left += [n for n in needs if not n.marker or n.marker.evaluate({"extra": extra})]
    return map(metadata.distribution, found)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the packages that hw3lib needs, and no others."""
    folder = tmp_path_factory.mktemp("packages")
    needs = map(Requirement, [*(metadata.requires("hw3lib") or []), *OF_COLAB])
    # What an extra of hw3lib needs has a marker.
    for distribution in closure(need for need in needs if not need.marker):
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "hw3lib", tree / "hw3lib", ignore=lambda *_: ["__pycache__"])
    files = ["pyproject.toml", "setup.py", "README.md", "LICENSE", "book/claims.yml"]
    for path in [*map(ROOT.joinpath, files), *ROOT.glob("benchmarks/measured/*.json")]:
        target = tree / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(out)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (wheel,) = out.iterdir()
    return wheel


@pytest.fixture
def python(tmp_path, packages):
    """The interpreter of a fresh environment that sees these packages."""
    home = tmp_path / "environment"
    venv.create(home)
    own_packages(home).joinpath("shared.pth").write_text(f"{packages}\n")
    return home / "bin" / "python"


def own_packages(home):
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.long] * (path.stem in SAMPLE))
        for path in NOTEBOOKS
    ],
)
def test_notebook_runs_alone_and_installs_nothing_but_the_wheel(path, python, wheel, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(path, folder)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "HW3LIB_SPEC": f"hw3lib @ {wheel.as_uri()}",
        "HW3_PRECISION": "float32",
        "OMP_NUM_THREADS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    code = "from nbclient.cli import main; main()"
    done = subprocess.run(
        [python, "-c", code, "--timeout=600", "--inplace", path.name],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert execution_faults(read(folder / path.name)) == []
    installed = own_packages(python.parents[1]).glob("*.dist-info")
    assert [folder.name.split("-")[0] for folder in installed] == ["hw3lib"]
