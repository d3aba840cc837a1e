"""Losses as modules: the Fenchel-Young loss of any map, and a class made from each map that has one; cross-entropy.

No map is named here. What a loss computes stands with the functions, which these call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import Module

from softplex.core.arguments import read_hyper
from softplex.core.formula import Parameter
from softplex.core.map import Map, short
from softplex.losses import cross_entropy
from softplex.torch.activations import a_map, class_name, made_from, takes, usual


class Loss(Module):
    """What the losses share: their arguments, and class weights as a buffer."""

    weight: Tensor | None

    def __init__(
        self,
        dim: int | tuple[int, ...] | None,
        reduction: str,
        ignore_index: int | None,
        weight: Tensor | None,
        label_smoothing: float,
        temperature: float,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.register_buffer("weight", weight)
        self.label_smoothing = label_smoothing
        self.temperature = temperature

    def options(self) -> dict[str, Any]:
        """What every loss is called with."""
        return {
            "reduction": self.reduction,
            "ignore_index": self.ignore_index,
            "weight": self.weight,
            "label_smoothing": self.label_smoothing,
            "temperature": self.temperature,
        }

    def extra_repr(self) -> str:
        """What was given and is not usual."""
        return ", ".join(self.shown())

    def shown(self) -> Iterator[str]:
        """The arguments, one by one."""
        yield f"dim={self.dim}"
        yield f"reduction={self.reduction!r}"
        if self.ignore_index is not None:
            yield f"ignore_index={self.ignore_index}"
        if self.weight is not None:
            yield f"weight={tuple(self.weight.shape)}"
        if self.label_smoothing:
            yield f"label_smoothing={self.label_smoothing}"
        if self.temperature != 1.0:
            yield f"temperature={self.temperature}"


class FenchelYoungLoss(Loss):
    """The Fenchel-Young loss of a map.

        loss = Omega*(z) + Omega(y) - <z, y>  with z = x / temperature;  its gradient in z is map(x) - y

    Arguments:
        map: a map of weights, bound maps too. Log maps and blends have no loss.
        dim: the dimension of the classes; the last, where torch's losses have the second.
        reduction: "mean" (over the weights of the rows' classes; over the rows for distributions), "sum" or "none".
        ignore_index: a class index whose rows count for nothing.
        weight: one number a class, a tensor; it moves with the module.
        label_smoothing: the part of each target that is spread evenly over the classes.
        temperature: a positive and finite number.
        hyper: the map's hyper-parameters, such as alpha.

    Returns:
        forward(x, y, where=None): scores of any shape; class indices (integers, shape of x without `dim`) or
        distributions (floating, shape of x). A 0-d tensor, or with "none" the shape of x without `dim`. If no row
        counts, the mean is 0.

    Raises:
        TypeError: for what is no map, one without a loss, and hyper-parameters that it does not have, or lacks.
        IndexError: (in forward) for a class index out of range.

    Example:
        >>> import torch, softplex as sx
        >>> from softplex.torch import FenchelYoungLoss
        >>> FenchelYoungLoss(sx.sparsemax)(torch.tensor([[0.0, 0.5], [3.0, 0.0]]), torch.tensor([0, 0]))
        tensor(0.2812)

    Source: Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324.
    """

    def __init__(
        self,
        map: Map,
        dim: int | tuple[int, ...] | None = -1,
        *,
        reduction: str = "mean",
        ignore_index: int | None = None,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
        **hyper: Any,
    ) -> None:
        super().__init__(dim, reduction, ignore_index, weight, label_smoothing, temperature)
        name = type(self).__name__
        self.map = a_map(map, name)
        if map.formula.kind != "simplex":
            raise TypeError(f"{name}: {map.name} has no loss; give a map of weights, such as softplex.softmax")
        given = read_hyper(name, map.formula.parameters, hyper)
        self.map.bind(**given)  # refuses what is not allowed
        self.fixed: dict[str, Any] = {key: float(value) for key, value in given.items()}

    def forward(self, x: Tensor, y: Tensor, where: Tensor | None = None) -> Tensor:
        """The loss of scores x against targets y."""
        loss: Tensor = self.map.loss(x, y, self.dim, where=where, **self.options(), **self.fixed)
        return loss

    def hyper(self, rule: Parameter) -> float:
        """A hyper-parameter."""
        number: float = self.fixed[rule.name]
        return number

    def shown(self) -> Iterator[str]:
        """The arguments, one by one."""
        if type(self) is FenchelYoungLoss:
            yield f"map={self.map.name}"
        yield from (f"{key}={short(value)}" for key, value in self.fixed.items())
        yield from super().shown()


class CrossEntropyLoss(Loss):
    """Cross-entropy of the softmax of the scores.

        loss = -sum_c weight_c y_c log softmax(x)_c

    Arguments:
        dim: the dimension of the classes; the last, where torch's loss has the second.
        weight, ignore_index, reduction, label_smoothing: as in torch.nn.CrossEntropyLoss.
        temperature: a positive and finite number.

    Returns:
        forward(x, y, where=None): as torch's; the mean of a batch in which every row is ignored is 0.

    Raises:
        IndexError: (in forward) for a class index out of range.

    Example:
        >>> import torch
        >>> from softplex.torch import CrossEntropyLoss
        >>> CrossEntropyLoss()(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([1, 0]))
        tensor(0.2201)

    Source: the negative log likelihood of softmax; Bridle 1990.
    """

    def __init__(
        self,
        dim: int | tuple[int, ...] | None = -1,
        *,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(dim, reduction, ignore_index, weight, label_smoothing, temperature)

    def forward(self, x: Tensor, y: Tensor, where: Tensor | None = None) -> Tensor:
        """The loss of scores x against targets y."""
        loss: Tensor = cross_entropy(x, y, self.dim, where=where, **self.options())
        return loss


def words(map: Map) -> str:
    """The docstring of a map's loss."""
    name = class_name(map) + "Loss"
    given = usual(map, 1)
    return f"""Fenchel-Young loss of {map.name}.

    loss = Omega*(z) + Omega(y) - <z, y>  with z = x / temperature;  for its map {map.equation}

Arguments:
{takes(map, tensors=False)}    dim: the dimension of the classes; the last, where torch's losses have the second.
    reduction, ignore_index, weight, label_smoothing, temperature: as in `FenchelYoungLoss`.

Returns:
    forward(x, y, where=None): as in `FenchelYoungLoss`.

Raises:
    TypeError, ValueError, IndexError: as `FenchelYoungLoss`.

Example:
    >>> import torch
    >>> from softplex.torch import {name}
    >>> {name}({given + ", " if given else ""}reduction="none")(torch.zeros(2, 3), torch.eye(3)[:2]).shape
    torch.Size([2])

Source: Blondel, Martins & Niculae 2020, Learning with Fenchel-Young Losses, arXiv:1901.02324; for the map {map.source}.
"""


def classes(maps: tuple[Map, ...]) -> dict[str, type[FenchelYoungLoss]]:
    """A loss for each map that has one, by its name."""
    have = [m for m in maps if m.formula.kind == "simplex"]
    return {class_name(m) + "Loss": made_from(FenchelYoungLoss, m, class_name(m) + "Loss", words(m)) for m in have}
