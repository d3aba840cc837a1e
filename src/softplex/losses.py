"""The losses by their usual names. What they compute stands in core/formula.py and core/targets.py."""

from __future__ import annotations

from typing import Any

from softplex.core.arguments import DEFAULT_AXIS, Axis, read
from softplex.core.arrays import Array
from softplex.core.call import Asked
from softplex.core.roads import open_to_tensors
from softplex.core.targets import cross_entropy_rows, read_targets, reduced_loss
from softplex.maps import entmax, entmax15, log_softmax, sparsemax


@open_to_tensors
def cross_entropy(
    x: Any,
    y: Any,
    axis: Axis = DEFAULT_AXIS,
    *,
    weight: Any = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **options: Any,
) -> Array:
    """Cross-entropy of the softmax of the scores against class indices or distributions.

        loss = -sum_c weight_c y_c log softmax(x)_c

    Arguments:
        x: scores of any shape.
        y: class indices (integers, shape of x without the axis) or distributions (floating, shape of x).
        axis: the class axis (or axes, class indices then being flat); the last, where torch's function has the second.
        weight: one number a class.
        ignore_index: a class index whose rows count for nothing.
        reduction: "mean" (over the weights of the rows' classes; over the rows for distributions), "sum" or "none".
        label_smoothing: the part of each target that is spread evenly over the entries that take part.
        options: temperature, where, sink, empty, dtype, dim as in calling a map.

    Returns:
        A 0-d array, or with "none" the shape of x without the axis. The mean of a batch without a row that counts is 0.

    Raises:
        IndexError: for a class index out of range.
        TypeError, ValueError: for arguments that are not taken.

    Example:
        >>> import softplex as sx
        >>> print(sx.cross_entropy([[0.0, 1.0], [2.0, 0.0]], [1, 0]).round(6))
        0.220095

    Source: the negative log likelihood of softmax; Bridle 1990.
    """
    call = read("cross_entropy", log_softmax.formula, x, axis, **options)
    targets = read_targets(call, y, ignore_index=ignore_index, weight=weight, label_smoothing=label_smoothing)
    asked = Asked("cross_entropy", log_softmax.formula, targets)
    return reduced_loss(call, asked, cross_entropy_rows, reduction)


@open_to_tensors
def sparsemax_loss(x: Any, y: Any, axis: Axis = DEFAULT_AXIS, **options: Any) -> Array:
    """Fenchel-Young loss of sparsemax: `sparsemax.loss`.

        loss = Omega*(x) + Omega(y) - <x, y>,  Omega(p) = sum (p^2 - p) / 2

    Arguments:
        x, y, axis, options: as in `sparsemax.loss`.

    Returns:
        A 0-d array, or with reduction="none" the shape of x without the axis.

    Raises:
        IndexError: for a class index out of range.

    Example:
        >>> import softplex as sx
        >>> print(sx.sparsemax_loss([0.0, 0.5], 0))
        0.5625

    Source: Martins & Astudillo 2016, arXiv:1602.02068.
    """
    return sparsemax.loss(x, y, axis, **options)


@open_to_tensors
def entmax15_loss(x: Any, y: Any, axis: Axis = DEFAULT_AXIS, **options: Any) -> Array:
    """Fenchel-Young loss of entmax15: `entmax15.loss`.

        loss = Omega*(x) + Omega(y) - <x, y>,  Omega(p) = sum (p^1.5 - p) / 0.75

    Arguments:
        x, y, axis, options: as in `entmax15.loss`.

    Returns:
        A 0-d array, or with reduction="none" the shape of x without the axis.

    Raises:
        IndexError: for a class index out of range.

    Example:
        >>> import softplex as sx
        >>> print(sx.entmax15_loss([0.0, 5.0], 1))
        0.0

    Source: Peters, Niculae & Martins 2019, arXiv:1905.05702.
    """
    return entmax15.loss(x, y, axis, **options)


@open_to_tensors
def entmax_loss(x: Any, y: Any, alpha: Any = 1.5, axis: Axis = DEFAULT_AXIS, **options: Any) -> Array:
    """Fenchel-Young loss of entmax: `entmax.loss`.

        loss = Omega*(x) + Omega(y) - <x, y>,  Omega(p) = sum (p^alpha - p) / (alpha (alpha - 1))

    Arguments:
        x, y, axis, options: as in `entmax.loss`.
        alpha: at least 1.

    Returns:
        A 0-d array, or with reduction="none" the shape of x without the axis.

    Raises:
        IndexError: for a class index out of range.

    Example:
        >>> import softplex as sx
        >>> print(sx.entmax_loss([0.0, 0.5], 0, alpha=2.0))
        0.5625

    Source: Peters, Niculae & Martins 2019, arXiv:1905.05702.
    """
    return entmax.loss(x, y, axis, alpha=alpha, **options)
