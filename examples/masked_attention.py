"""Attention over sentences of different lengths, in NumPy: padding is masked, a sink may take what no word deserves.

python examples/masked_attention.py
"""

import numpy as np

import softplex as sx


def attend(queries, keys, values, is_word, chosen=sx.softmax, **options):
    """Weighted means of the values, and the weights: shapes (batch, n, features) and (batch, n, n)."""
    scores = queries @ keys.swapaxes(-1, -2) / np.sqrt(queries.shape[-1])
    weights = chosen(scores, where=is_word[:, None, :], **options)
    # A weight of 0 does not silence a NaN, so padding is left out of the values too.
    return weights @ np.where(is_word[..., None], values, 0.0), weights


def main():
    """Print the tables."""
    rng = np.random.default_rng(0)
    lengths = np.array([5, 2, 0])
    is_word = np.arange(5) < lengths[:, None]
    words = np.where(is_word[..., None], rng.normal(0.0, 1.5, (3, 5, 4)), np.nan)  # padding holds NaN on purpose

    for chosen, options in ((sx.softmax, {}), (sx.sparsemax, {}), (sx.entmax15, {}), (sx.sparsemax, {"sink": 0.5})):
        means, weights = attend(words, words, words, is_word, chosen, **options)
        print(f"\n{chosen.name} {options or ''}\nthe first word's weights, sentences of {lengths} words:")
        print(np.array2string(weights[:, 0], precision=3, suppress_small=True))
        assert np.isfinite(weights[is_word]).all()
        assert not weights[2].any()  # nothing to weigh: zeros, no NaN
        assert np.isfinite(means[is_word]).all()


if __name__ == "__main__":
    main()
