"""The planted mistakes can all be planted, and two of them are; `make mutants` plants all."""

from pathlib import Path

import pytest

from tests.mutants.run import ROOT, catalog, fails

MUTANTS = {mutant.name: mutant for mutant in catalog()}


def test_each_mistake_has_a_name_of_its_own():
    assert len(MUTANTS) == len(catalog()) >= 60


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_changes_a_file_and_names_tests_that_exist(name):
    mutant = MUTANTS[name]
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.planted(source) != source
    for test in mutant.tests.split():
        path, _, function = test.partition("::")
        assert (ROOT / path).exists()
        assert (
            f"def {function.partition('[')[0]}(" in Path(ROOT / path).read_text("utf-8")
            or not function
        )


def test_a_planted_mistake_is_caught_by_tests_that_pass_without_it():
    mutant = MUTANTS["bits per dimension in nats"]
    assert not fails(mutant.tests)
    assert fails(mutant.tests, mutant)
