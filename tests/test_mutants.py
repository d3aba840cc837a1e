"""Every mutant is caught by its law, which the true map passes in test_laws.py: the laws have been seen to fail."""

import pytest

import laws
from frameworks import FRAMEWORKS
from mutants import MUTANTS
from test_laws import CASES

LAWS = {law.name: law for law in laws.LAWS}
CAUGHT = (AssertionError, pytest.fail.Exception)
PASSED = {(case[0].name, laws.name_of(case[1]), case[2].name, case[3]) for case in (each.values for each in CASES)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_the_mutant_is_caught(mutant):
    law, name = LAWS[mutant.law], laws.name_of(mutant.of)
    (framework,) = [each for each in FRAMEWORKS if each.name == mutant.framework]
    if framework.missing:
        pytest.skip(framework.missing)
    assert (law.name, name, framework.name, mutant.dtype) in PASSED
    with framework.setting(), pytest.raises(CAUGHT):
        law.check(laws.Case(mutant.make(mutant.of), name, framework, mutant.dtype))


def test_every_mutant_has_a_name_of_its_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
