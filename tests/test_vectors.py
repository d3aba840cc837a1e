"""Vectors from the literature and the peers, and the examples in the docstrings."""

import doctest
import inspect

import numpy as np
import pytest

import softplex as sx


def rounded(values, digits=4):
    return np.round(np.asarray(values), digits).tolist()


def test_softmax_of_the_textbook():
    assert rounded(sx.softmax([5, 7, 10])) == [0.0064, 0.0471, 0.9465]


def test_softmax_forgets_a_shift():
    assert sx.softmax([1, 2, 3]).tobytes() == sx.softmax([7, 8, 9]).tobytes()
    assert rounded(sx.softmax([1, 2, 3])) == [0.0900, 0.2447, 0.6652]


def test_softmin_turns_softmax_round():
    np.testing.assert_array_max_ulp(sx.softmin([1, 2, 3, 4]), sx.softmax([4, 3, 2, 1]), 2)
    assert rounded(sx.softmin([1, 2, 3, 4])) == [0.6439, 0.2369, 0.0871, 0.0321]


def test_sparsemax_where_keras_is_wrong():
    np.testing.assert_array_max_ulp(sx.sparsemax([0.1, 0.2, 0.3, 0.2]), np.array([0.15, 0.25, 0.35, 0.25]), 2)
    assert sx.sparsemax([1, 1]).tolist() == [0.5, 0.5]


def test_entmax15_of_the_paper():
    assert rounded(sx.entmax15([-2, 0, 0.5])) == [0, 0.3260, 0.6740]
    assert sx.entmax15([-2, 0, 0.5])[0] == 0


def test_entmax_where_the_threshold_loses_its_digits():
    assert rounded(sx.entmax([1, 1 - 2**-24], alpha=50), 3) == [0.771, 0.229]


def test_entmax_meets_its_neighbours():
    x = [0.3, -0.2, 0.9, 0.85, -3.0]
    for alpha, neighbour in ((1, sx.softmax), (1.5, sx.entmax15), (2, sx.sparsemax)):
        wanted = neighbour(x)
        np.testing.assert_allclose(sx.entmax(x, alpha=alpha), wanted, rtol=0, atol=24 * np.spacing(wanted.max()))
    assert sx.entmax([1, 3, 3, 2], alpha=np.inf).tolist() == [0, 0.5, 0.5, 0]


def test_maxout_of_two_units():
    x = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert sx.maxout(x).tolist() == [[3, 6], [9, 12]]


def test_log_softmax_of_a_confident_row():
    first, second = sx.log_softmax([0.0, -40.0])
    assert first == pytest.approx(-4.248354255291589e-18, rel=1e-15)
    assert second == -40
    assert sx.log_softmax(np.array([0.0, -40.0], np.float32))[0] == np.float32(-4.248354255291589e-18)


def test_the_names_are_those_of_the_contract():
    names = ["softmax", "log_softmax", "softmin", "log_softmin", "sparsemax", "entmax", "entmax15", "normmax", "budget"]
    assert sorted(each.__name__ for each in sx.MAPS) == sorted(names)
    assert isinstance(sx.MAPS, tuple)
    assert all(getattr(sx, each.__name__) is each for each in sx.MAPS)


PUBLIC = [getattr(sx, name) for name in dir(sx) if not name.startswith("_") and not inspect.ismodule(getattr(sx, name))]


@pytest.mark.parametrize("public", [each for each in PUBLIC if callable(each)], ids=lambda each: each.__name__)
def test_docstring_examples_run(public):
    """A docstring of a public name: one line, an example that runs, and what it says it prints."""
    text = inspect.getdoc(public) or ""
    assert text.splitlines()[0].strip(), "no first line"
    names = {each.__name__: each for each in PUBLIC if callable(each)} | {"sx": sx, "np": np, "softplex": sx}
    example = doctest.DocTestParser().get_doctest(text, names, public.__name__, None, 0)
    if public in (*sx.MAPS, sx.blend, sx.maxout, sx.cross_entropy, sx.sparsemax_loss, sx.entmax15_loss, sx.entmax_loss):
        assert example.examples, "no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said = []
    runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("map_", sx.MAPS, ids=lambda each: each.__name__)
def test_docstrings_name_every_argument(map_):
    text = inspect.getdoc(map_)
    for word in ("axis", "temperature", "where", "sink", "empty", "dtype", "out", "Returns", "Raises", "Source"):
        assert word in text
    for name in inspect.signature(map_).parameters:
        assert name in text
