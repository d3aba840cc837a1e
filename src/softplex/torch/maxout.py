"""Maxout as a module, and torch's own layers with several pieces a unit. How a maximum is taken is maxout's business.

A layer is torch's layer with units * pieces outputs, its arguments and its initialisation (which look at the inputs
of a unit only), and the maximum over each unit's pieces. Row u * pieces + j of its weight is piece j of unit u.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor
from torch.nn import Conv1d, Conv2d, Conv3d, Linear, Module

from softplex.maps.maxout import maxout


class Maxout(Module):
    """Maximum over the pieces of each unit.

        y_u = max_j x_(u, j)

    Arguments:
        pieces: how many entries, which are neighbours, make a unit.
        dim: the dimension of the units and pieces: units * pieces entries become units.

    Returns:
        forward(x): a tensor of the dtype of x, `dim` shrunk.

    Raises:
        TypeError, ValueError: where pieces is no integer above 0, or (in forward) does not divide the dimension.

    Example:
        >>> import torch
        >>> from softplex.torch import Maxout
        >>> Maxout(2)(torch.tensor([1.0, 5.0, 2.0, 3.0]))
        tensor([5., 3.])

    Source: Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389.
    """

    def __init__(self, pieces: int, dim: int = -1) -> None:
        super().__init__()
        self.pieces = count(pieces, "Maxout")
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """The maxima."""
        result: Tensor = maxout(x, self.pieces, self.dim)
        return result

    def extra_repr(self) -> str:
        """What was given."""
        return f"pieces={self.pieces}, dim={self.dim}"


class MaxoutLinear(Linear):
    """A linear layer whose units are the maximum of several affine functions.

        y_u = max_j (W x + b)_(u, j)

    Arguments:
        in_features, out_features: how many numbers go in, and units come out.
        pieces: how many affine functions make a unit.
        bias, device, dtype: as in torch.nn.Linear.

    Returns:
        forward(x): (..., in_features) becomes (..., out_features). `weight` is (out_features * pieces, in_features),
        row u * pieces + j being piece j of unit u, `bias` likewise.

    Raises:
        TypeError, ValueError: where pieces is no integer above 0.

    Example:
        >>> import torch
        >>> from softplex.torch import MaxoutLinear
        >>> layer = MaxoutLinear(3, 4, pieces=2)
        >>> layer(torch.zeros(5, 3)).shape, layer.weight.shape
        (torch.Size([5, 4]), torch.Size([8, 3]))

    Source: Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pieces: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        pieces = count(pieces, type(self).__name__)
        super().__init__(in_features, out_features * pieces, bias, device, dtype)
        self.out_features = out_features
        self.pieces = pieces

    def forward(self, input: Tensor) -> Tensor:
        """The maximum of each unit's affine functions."""
        result: Tensor = maxout(super().forward(input), self.pieces, -1)
        return result

    def extra_repr(self) -> str:
        """What was given."""
        return f"{super().extra_repr()}, pieces={self.pieces}"


class PiecesOfChannels:
    """What the convolutions share: the channels of torch's layer are units * pieces. It stands before torch's class."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, pieces: int, *arguments: Any, **options: Any
    ) -> None:
        name = type(self).__name__
        pieces = count(pieces, name)
        super().__init__(in_channels, out_channels * pieces, kernel_size, *arguments, **options)  # type: ignore[call-arg]
        layer: Any = self
        if out_channels % layer.groups:
            raise ValueError(
                f"{name}: out_channels={out_channels} with groups={layer.groups}; the pieces of a unit belong to one "
                "group, so groups must divide out_channels"
            )
        layer.out_channels = out_channels
        layer.pieces = pieces

    def forward(self, input: Tensor) -> Tensor:
        """The maximum of each unit's convolutions."""
        layer: Any = self
        # The channels are counted from the end, for an input without a batch has them first.
        channels = -1 - len(layer.kernel_size)
        result: Tensor = maxout(super().forward(input), layer.pieces, channels)  # type: ignore[misc]
        return result

    def extra_repr(self) -> str:
        """What was given."""
        layer: Any = self
        return f"{super().extra_repr()}, pieces={layer.pieces}"  # type: ignore[misc]


CONVOLUTION = """A convolution whose channels are the maximum of several convolutions.

    y_u = max_j (W * x + b)_(u, j)

Arguments:
    in_channels, out_channels, kernel_size: as in torch.nn.{base}; out_channels counts units.
    pieces: how many convolutions make a unit.
    stride, padding, dilation, groups, bias, padding_mode, device, dtype: as in torch.nn.{base}, in its order. With
        groups the pieces of a unit stay in one group.

Returns:
    forward(x): as torch.nn.{base}. `weight` has out_channels * pieces rows, row u * pieces + j being piece j of unit u.

Raises:
    TypeError, ValueError: where pieces is no integer above 0, or groups does not divide out_channels.

Example:
    >>> import torch
    >>> from softplex.torch import {name}
    >>> layer = {name}(2, 4, kernel_size=3, pieces=2, padding=1)
    >>> layer(torch.zeros(1, 2, *{sizes})).shape
    torch.Size({shape})

Source: Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389.
"""


def described(rank: int) -> str:
    """The docstring of the convolution over so many dimensions."""
    sizes = (5,) * rank
    return CONVOLUTION.format(base=f"Conv{rank}d", name=f"MaxoutConv{rank}d", sizes=sizes, shape=[1, 4, *sizes])


class MaxoutConv1d(PiecesOfChannels, Conv1d):  # noqa: D101 - described() has the words
    __doc__ = described(1)


class MaxoutConv2d(PiecesOfChannels, Conv2d):  # noqa: D101 - described() has the words
    __doc__ = described(2)


class MaxoutConv3d(PiecesOfChannels, Conv3d):  # noqa: D101 - described() has the words
    __doc__ = described(3)


def count(pieces: Any, name: str) -> int:
    """How many pieces, checked."""
    try:
        number = operator.index(pieces)
    except TypeError:
        raise TypeError(f"{name}: pieces={pieces!r} is not an integer; give how many make a unit") from None
    if number < 1:
        raise ValueError(f"{name}: pieces={number}; a unit has at least one")
    return number
