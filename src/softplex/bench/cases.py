"""What is measured, a row of data each: functions, shapes, scores, peers and the figure that is promised.

No data and no calls are made here (see `inputs` and `peers`), and nothing is judged (see `ratios`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from softplex.files.errors import UsageError


class Shape(NamedTuple):
    """The sizes of an array, and the axis that is normalised."""

    sizes: tuple[int, ...]
    axis: int = -1

    @property
    def entries(self) -> int:
        """How many entries such an array has."""
        return math.prod(self.sizes)

    @property
    def row(self) -> int:
        """How many entries a row has."""
        return self.sizes[self.axis]

    @property
    def label(self) -> str:
        """As it is shown: 1024 × 1024, axis 0."""
        sizes = " × ".join(map(str, self.sizes))
        return sizes if self.axis == -1 else f"{sizes}, axis {self.axis}"


SHAPES = (
    Shape((1, 10)),
    Shape((64, 10)),
    Shape((128, 1000)),
    Shape((1024, 1024)),
    Shape((4096, 4096)),
    Shape((128, 32_000)),
    Shape((16, 128_256)),
    Shape((1, 1_000_000)),
    Shape((65_536, 64)),
    Shape((1024, 1024), 0),
)
LARGE_SHAPES = (
    Shape((4096, 4096)),
    Shape((131_072, 512)),
    Shape((65_536, 1024)),
    Shape((2048, 32_000)),
    Shape((1, 40_000_000)),
)
LOSS_SHAPES = (Shape((128, 1000)), Shape((1024, 1024)), Shape((128, 32_000)), Shape((16, 128_256)))
SHAPES_ACROSS = (
    Shape((64, 2, 4096), 1),
    Shape((16, 21, 4096), 1),
    Shape((64, 64, 49), 1),
    Shape((64, 128, 12), 1),
    Shape((4096, 64), 0),
    Shape((16_384, 64), 0),
    Shape((100_000, 32), 0),
)
MEMORY_SHAPES = (Shape((1, 20_000_000)), Shape((20_000, 1000)), Shape((100, 1000)))

QUICK_ENTRIES = 2**17
"""The largest arrays of a quick run."""


@dataclass(frozen=True)
class Goal:
    """One line of the table: a figure, and what is promised of it.

    Statistics: "mean", the geometric mean of the ratios over the shapes, the lowest of the functions' means; "worst",
    the lowest ratio of all; "time", seconds a call; "memory", memory beyond the result in rows a thread. A ratio is the
    peer's time over softplex's. Of the last two less is better.
    """

    peer: str
    target: float | Mapping[str, float] | None = None  # a mapping: by instruction set
    statistic: str = "mean"
    from_entries: int = 0
    what: str = ""  # in the case's place


@dataclass(frozen=True)
class Case:
    """Functions that are measured on the same arrays, each with the peers of its goals."""

    name: str
    what: str
    operations: tuple[str, ...]
    goals: tuple[Goal, ...]
    shapes: tuple[Shape, ...] = SHAPES
    dtypes: tuple[str, ...] = ("float32",)
    scores: str = "normal"
    takes_more_shapes: bool = True
    beyond_cache: bool = False
    measure: str = "speed"

    @property
    def peers(self) -> list[str]:
        """The peers that are timed, each once."""
        return list(dict.fromkeys(goal.peer for goal in self.goals if goal.peer != "softplex"))


THE_SAME_FUNCTIONS = ("softmax", "log_softmax", "softmin")
SPARSE = ("sparsemax", "entmax15")

CASES = (
    Case(
        "softmax",
        "softmax, log_softmax, softmin",
        THE_SAME_FUNCTIONS,
        (
            Goal("PyTorch", 2.0),
            Goal("SciPy", 4.0),
            Goal("JAX", 2.0),
            Goal("PyTorch", 1.2, "worst", 16_384, "the same, worst shape of 16 K entries or more"),
        ),
    ),
    Case(
        "wide",
        "softmax, log_softmax, scores N(0, 15)",
        ("softmax", "log_softmax"),
        (Goal("PyTorch"), Goal("PyTorch", None, "worst", 16_384, "the same, worst shape of 16 K entries or more")),
        scores="wide",
    ),
    Case("wide-vjp", "VJP of softmax, scores N(0, 15)", ("softmax.vjp",), (Goal("PyTorch's backward"),), scores="wide"),
    Case(
        "across",
        "softmax, log_softmax along other axes",
        ("softmax", "log_softmax"),
        (Goal("PyTorch"), Goal("PyTorch", None, "worst", 16_384, "the same, worst shape of 16 K entries or more")),
        shapes=SHAPES_ACROSS,
        takes_more_shapes=False,
    ),
    Case(
        "beyond-cache",
        "beyond the cache: share of a copy",
        THE_SAME_FUNCTIONS,
        (Goal("streaming copy", {"x86-64-v4": 0.85, "x86-64-v3": 0.65}),),
        shapes=LARGE_SHAPES,
        beyond_cache=True,
    ),
    Case(
        "sparse",
        "sparsemax, entmax15",
        SPARSE,
        (Goal("entmax", 100.0), Goal("entmax, k=100")),
    ),
    Case("own-normal", "sparsemax, entmax15, scores N(0, 2)", SPARSE, (Goal("own softmax", 0.8),)),
    Case(
        "own-equal",
        "sparsemax, entmax15, scores nearly equal",
        SPARSE,
        (Goal("own softmax", 0.4),),
        scores="equal",
    ),
    Case(
        "own-peaked",
        "sparsemax, entmax15, scores very peaked",
        SPARSE,
        (Goal("own softmax", 0.8),),
        scores="peaked",
    ),
    Case("entmax", "entmax(alpha=1.3)", ("entmax(1.3)",), (Goal("entmax_bisect", 50.0),)),
    Case(
        "vjp",
        "VJP of softmax",
        ("softmax.vjp",),
        (
            Goal("PyTorch's backward", 1.5),
            Goal("PyTorch's operator"),
            Goal("PyTorch, with forward"),
        ),
    ),
    Case(
        "half",
        "softmax of float16 and bfloat16",
        ("softmax",),
        (Goal("PyTorch", 1.5),),
        dtypes=("float16", "bfloat16"),
    ),
    Case("masked", "masked softmax (where)", ("softmax(where)",), (Goal("own softmax", 0.7),)),
    Case(
        "call",
        "a call on 17 entries",
        ("softmax",),
        (Goal("softplex", 1.5e-6, "time"), Goal("SciPy", 5.0)),
        shapes=(Shape((17,)),),
        takes_more_shapes=False,
    ),
    Case(
        "tensors",
        "on tensors: softmax, log_softmax, softmin",
        tuple(f"tensor {name}" for name in THE_SAME_FUNCTIONS),
        (Goal("PyTorch", 1.8),),
    ),
    Case(
        "tensors-step",
        "on tensors, forward and backward: the same",
        tuple(f"step {name}" for name in THE_SAME_FUNCTIONS),
        (Goal("PyTorch", 1.5),),
    ),
    Case(
        "tensors-across",
        "on tensors along other axes, forward and backward",
        ("step softmax", "step log_softmax"),
        (Goal("PyTorch"),),
        shapes=SHAPES_ACROSS,
        takes_more_shapes=False,
    ),
    Case(
        "tensors-sparse",
        "on tensors, forward and backward: sparsemax, entmax15",
        tuple(f"step {name}" for name in SPARSE),
        (Goal("entmax", 60.0),),
    ),
    Case(
        "tensors-learned",
        "on tensors with a learned temperature, forward and backward: softmax, log_softmax",
        ("step softmax, learned", "step log_softmax, learned"),
        (Goal("PyTorch"),),
        shapes=LOSS_SHAPES,
        takes_more_shapes=False,
    ),
    Case(
        "tensors-learned-alpha",
        "on tensors with a learned alpha, forward and backward: entmax",
        ("step entmax, learned",),
        (Goal("entmax_bisect"),),
        shapes=LOSS_SHAPES,
        takes_more_shapes=False,
    ),
    Case(
        "tensors-vocabulary",
        "cross_entropy, forward and backward",
        ("step cross_entropy",),
        (Goal("PyTorch", 1.5),),
        shapes=(Shape((512, 128_256)),),
        takes_more_shapes=False,
    ),
    Case(
        "tensors-losses",
        "sparsemax_loss, forward and backward",
        ("step sparsemax_loss",),
        (Goal("entmax", 60.0),),
        shapes=LOSS_SHAPES,
        takes_more_shapes=False,
    ),
    Case(
        "tensors-call",
        "a call on a tensor of 17 entries",
        ("tensor softmax",),
        (Goal("PyTorch", 1 / 3),),
        shapes=(Shape((17,)),),
        takes_more_shapes=False,
    ),
    Case(
        "tensors-call-followed",
        "the same on one that asks for a gradient",
        ("tensor softmax, followed",),
        (Goal("PyTorch", 1 / 4),),
        shapes=(Shape((17,)),),
        takes_more_shapes=False,
    ),
    Case(
        "arrays",
        "in compiled JAX functions: softmax, log_softmax, softmin",
        tuple(f"array {name}" for name in THE_SAME_FUNCTIONS),
        (Goal("JAX", 1.5), Goal("JAX", 0.9, "worst", 0, "the same, worst shape")),
    ),
    Case(
        "arrays-gradient",
        "in compiled JAX functions, forward and backward: the same",
        tuple(f"gradient {name}" for name in THE_SAME_FUNCTIONS),
        (Goal("JAX"),),
    ),
    Case(
        "arrays-sparse",
        "in compiled JAX functions: sparsemax",
        ("array sparsemax",),
        (Goal("optax", 100.0),),
    ),
    Case(
        "arrays-entmax",
        "in compiled JAX functions: sparsemax, entmax15, entmax(1.3)",
        ("array sparsemax", "array entmax15", "array entmax(1.3)"),
        (Goal("JAX's softmax"),),
    ),
    Case(
        "memory",
        "memory beyond the result, in rows a thread",
        ("softmax", "sparsemax"),
        (Goal("softplex", 1.0, "memory"),),
        shapes=MEMORY_SHAPES,
        takes_more_shapes=False,
        measure="memory",
    ),
)


# ---- what the command's options make of them


def chosen_cases(
    only: Sequence[str], more: Sequence[Shape], quick: bool, cache: int, cases: Sequence[Case] = CASES
) -> list[Case]:
    """The cases of these names (none: all), with the shapes that are to be measured.

    Arguments:
        only: names of cases.
        more: shapes of the caller's own; they count as the others do.
        quick: leave the large ones of the others out.
        cache: the size of the last-level cache in bytes, for the case beyond it.
        cases: to choose from.

    Raises:
        UsageError: for a name that no case has.
    """
    names = [case.name for case in cases]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise UsageError(f"--only {unknown[0]}: there is no such row; rows are {', '.join(names)}")
    chosen = [case for case in cases if not only or case.name in only]
    return [replace(case, shapes=_shapes(case, more, quick, cache)) for case in chosen]


def _shapes(case: Case, more: Sequence[Shape], quick: bool, cache: int) -> tuple[Shape, ...]:
    usual = [shape for shape in case.shapes if not quick or shape.entries <= QUICK_ENTRIES]
    if case.beyond_cache:
        usual = [grown(shape, cache) for shape in usual]
    shapes = dict.fromkeys([*usual, *(more if case.takes_more_shapes else ())])
    return tuple(shape for shape in shapes if not case.beyond_cache or is_beyond(shape, cache))


def grown(shape: Shape, cache: int) -> Shape:
    """A shape beyond this cache: so many times the rows as that takes, or of one row the entries."""
    times = next(k for k in itertools.count(1) if 2 * 4 * shape.entries * k >= 2 * cache)
    rows, length = shape.sizes
    return Shape((1, length * times) if rows == 1 else (rows * times, length))


def is_beyond(shape: Shape, cache: int) -> bool:
    """Whether float32 scores and their weights take at least twice the cache."""
    return 2 * 4 * shape.entries >= 2 * cache


def parse_shapes(texts: Sequence[str]) -> list[Shape]:
    """The shapes that were asked for, written 7x333 or, along axis 0, 7x333@0; several with commas or spaces.

    Raises:
        UsageError: for anything else.
    """
    return [_parse_shape(word) for text in texts for word in text.replace(",", " ").split()]


def _parse_shape(word: str) -> Shape:
    sizes, mark, axis = word.partition("@")
    try:
        shape = Shape(tuple(int(size) for size in sizes.split("x")), int(axis) if mark else -1)
    except ValueError:
        raise UsageError(f"--shapes {word}: not a shape; write 7x333, or 7x333@0 for axis 0") from None
    if min(shape.sizes) < 1:
        raise UsageError(f"--shapes {word}: sizes must be at least 1")
    if not -len(shape.sizes) <= shape.axis < len(shape.sizes):
        raise UsageError(f"--shapes {word}: axis {shape.axis} is out of bounds for {len(shape.sizes)} axes")
    # The last axis is written in one way only, so that the same shape is not measured twice.
    return shape if shape.axis % len(shape.sizes) != len(shape.sizes) - 1 else Shape(shape.sizes)
