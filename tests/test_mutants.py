"""Every mutant is caught by its law, and the true map passes that law: the laws have been seen to fail."""

import pytest

import laws
from frameworks import FRAMEWORKS
from mutants import MUTANTS

LAWS = {law.name: law for law in laws.LAWS}
CAUGHT = (AssertionError, pytest.fail.Exception)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_the_mutant_is_caught(mutant):
    law, name = LAWS[mutant.law], laws.name_of(mutant.of)
    (framework,) = [each for each in FRAMEWORKS if each.name == mutant.framework]
    if framework.missing:
        pytest.skip(framework.missing)
    assert law.covers(name, framework, mutant.dtype)
    with framework.setting():
        law.check(laws.Case(mutant.of, name, framework, mutant.dtype))
        with pytest.raises(CAUGHT):
            law.check(laws.Case(mutant.make(mutant.of), name, framework, mutant.dtype))


def test_every_mutant_has_a_name_of_its_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
