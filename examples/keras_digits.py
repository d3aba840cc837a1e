"""Handwritten digits in Keras: maxout layers, and a sparsemax loss that lets impossible digits weigh exactly nothing.

It runs on any backend: KERAS_BACKEND=jax python examples/keras_digits.py --out pictures
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # products as small as these gain nothing from more
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softplex.keras
from softplex.keras import MaxoutDense, Sparsemax

softplex.keras.register()
INK, ACCENT, OTHER, MUTED, GRID = "#1f2430", "#0b6e99", "#d1782c", "#8a93a3", "#e3e6eb"


def network():
    """Scores of the ten digits, and the weights that sparsemax makes of them."""
    pixels = keras.Input((64,))
    x = MaxoutDense(32, pieces=3)(pixels)
    x = keras.layers.Dropout(0.2)(x)
    x = MaxoutDense(32, pieces=3)(x)
    scores = keras.layers.Dense(10)(x)
    return keras.Model(pixels, scores), keras.Model(pixels, Sparsemax()(scores))


def picture(history, images, weights, truth, path):
    """The loss, some images that the network hesitates over, and how many digits it keeps."""
    plt.rcParams.update({"font.size": 9, "axes.edgecolor": MUTED, "text.color": INK, "axes.labelcolor": INK})
    figure = plt.figure(figsize=(13.5, 4.4), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[1, 1.5, 1])

    axes = left.subplots()
    epochs = range(1, len(history["loss"]) + 1)
    axes.plot(epochs, history["loss"], color=MUTED, label="training, with dropout")
    axes.plot(epochs, history["val_loss"], color=ACCENT, label="held out")
    axes.set(title="sparsemax loss", xlabel="epoch", ylim=(0, None))
    axes.legend(frameon=False)

    kept = (weights > 0).sum(axis=1)
    # Those with several digits in play, the most evenly weighed first.
    doubtful = np.argsort(weights.max(axis=1))[:6]
    middle.suptitle("weights of digits hard to tell (blue: the true one; no bar: exactly 0)", fontsize=10)
    cells = middle.subplots(2, 6, gridspec_kw={"width_ratios": [1, 1.3] * 3})
    for place, index in enumerate(doubtful):
        image, bars = cells[place // 3, 2 * (place % 3)], cells[place // 3, 2 * (place % 3) + 1]
        image.imshow(images[index].reshape(8, 8), cmap="gray_r", interpolation="nearest")
        image.set(xticks=[], yticks=[])
        colours = [ACCENT if digit == truth[index] else OTHER for digit in range(10)]
        bars.barh(range(10), weights[index], color=colours)
        bars.set(xlim=(0, 1), yticks=range(10), xticks=[0, 1])
        bars.tick_params(labelsize=6, length=0)
        bars.invert_yaxis()
        bars.spines[["top", "right"]].set_visible(False)

    other = right.subplots()
    sizes = np.bincount(kept, minlength=6)[1:6]
    other.bar(range(1, 6), sizes / len(kept), color=ACCENT)
    other.set(
        title="digits that keep any weight", xlabel="how many of 10", ylabel="share of held-out images", ylim=(0, 1)
    )
    for each in (axes, other):
        each.grid(color=GRID, linewidth=0.6)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main():
    """Train, print a summary, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(), help="directory for the picture")
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    began = time.perf_counter()

    x, y = load_digits(return_X_y=True)
    x, x_out, y, y_out = train_test_split(x.astype("float32") / 16, y, test_size=0.3, random_state=0, stratify=y)
    scoring, weighing = network()
    scoring.compile(keras.optimizers.Adam(3e-3), loss="sparsemax_loss", metrics=["accuracy"])
    run = scoring.fit(x, y, validation_data=(x_out, y_out), epochs=options.epochs, batch_size=64)

    weights = weighing.predict(x_out, verbose=0)
    kept = (weights > 0).sum(axis=1)
    right = weights.argmax(axis=1) == y_out
    print(
        f"{keras.backend.backend()}: {scoring.count_params()} parameters, {right.mean():.1%} of held-out digits right"
    )
    print(f"a digit keeps {kept.mean():.2f} of 10 classes; {np.mean(kept == 1):.0%} are told apart with certainty")
    if right.any() and not right.all():
        print(f"where it errs it keeps {kept[~right].mean():.2f}")
    options.out.mkdir(parents=True, exist_ok=True)
    picture(run.history, x_out, weights, y_out, options.out / "keras_digits.png")
    print(f"{options.out / 'keras_digits.png'}; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
