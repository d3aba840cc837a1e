"""Every mutant is caught by its law, and the true map passes that law: the laws have been seen to fail."""

import pytest

import laws
from frameworks import NUMPY
from mutants import MUTANTS

LAWS = {law.name: law for law in laws.LAWS}
CAUGHT = (AssertionError, pytest.fail.Exception)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_the_mutant_is_caught(mutant):
    law, name = LAWS[mutant.law], laws.name_of(mutant.of)
    assert law.covers(name, NUMPY, mutant.dtype)
    law.check(laws.Case(mutant.of, name, NUMPY, mutant.dtype))
    with pytest.raises(CAUGHT):
        law.check(laws.Case(mutant.make(mutant.of), name, NUMPY, mutant.dtype))


def test_every_mutant_has_a_name_of_its_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
