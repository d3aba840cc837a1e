"""From all the weight on the best to equal weights: every map of the family as the temperature rises.

python examples/temperature_sweep.py
"""

import numpy as np

import softplex as sx

SCORES = np.array([2.0, 1.8, 1.0, 0.0, -3.0])
TEMPERATURES = np.array([[0.1], [0.3], [1.0], [3.0], [10.0]])


def main():
    """Print the table."""
    print(f"scores {SCORES}: how many of them weigh, and the largest weight, by temperature\n")
    print(f"{'':12}" + "".join(f"{float(t):>10g}" for t in TEMPERATURES[:, 0]))
    for chosen in sx.MAPS:
        if chosen.formula.kind != "simplex" or any(p.default is None for p in chosen.formula.parameters):
            continue  # logarithms, and maps that must be told a number first
        # One row a temperature: arrays of temperatures broadcast against the scores.
        rows = np.broadcast_to(SCORES, (len(TEMPERATURES), len(SCORES)))
        weights = chosen(rows, temperature=TEMPERATURES)
        sizes = chosen.support_size(rows, temperature=TEMPERATURES)
        cells = (f"{size}: {largest:.3f}" for size, largest in zip(sizes, weights.max(axis=-1), strict=True))
        print(f"{chosen.name:12}" + "".join(f"{cell:>10}" for cell in cells))


if __name__ == "__main__":
    main()
