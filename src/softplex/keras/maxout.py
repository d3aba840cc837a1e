"""Maxout as a layer, and Keras' own layers with several pieces a unit. How a maximum is taken is maxout's business.

A layer holds Keras' layer with units * pieces outputs, its arguments and its initialisation, and takes the maximum over
each unit's pieces. Column u * pieces + j of its kernel (the last axis) is piece j of unit u.
"""

from __future__ import annotations

import operator
from typing import Any

import keras

from softplex.keras.activations import OF_ANY_LAYER, checked_axis, keywords_of, refuse_unless_among, serializable
from softplex.maps.maxout import maxout


@serializable
class Maxout(keras.Layer):
    """Maximum over the pieces of each unit.

        y_u = max_j x_(u, j)

    Arguments:
        pieces: how many entries, which are neighbours, make a unit.
        axis: the axis of the units and pieces: units * pieces entries become units.
        options: Keras' own arguments of a layer.

    Returns:
        call(inputs): a tensor of the layer's compute dtype, the axis shrunk.

    Raises:
        TypeError, ValueError: where pieces is no integer above 0, the axis none, or a keyword not known; (in call)
            where pieces does not divide the axis.

    Example:
        >>> import keras, numpy as np
        >>> from softplex.keras import Maxout
        >>> np.asarray(Maxout(2)(keras.ops.array([[1.0, 5.0, 2.0, 3.0]])))
        array([[5., 3.]], dtype=float32)

    Source: Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389.
    """

    def __init__(self, pieces: int, axis: int = -1, **options: Any) -> None:
        where = type(self).__name__
        refuse_unless_among([*keywords_of(type(self)), *OF_ANY_LAYER], options, where)
        super().__init__(**options)
        self.pieces = count(pieces, where)
        self.axis = checked_axis(axis, where)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The maxima."""
        return maxout(keras.ops.cast(inputs, self.compute_dtype), self.pieces, self.axis)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The axis shrunk."""
        return shrunk(input_shape, self.axis, self.pieces)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask, which knows nothing of units: none where the axis is one that it has."""
        if previous_mask is None:
            return None
        axis = self.axis % len(inputs.shape)
        return None if axis < len(previous_mask.shape) else previous_mask

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return {**super().get_config(), "pieces": self.pieces, "axis": self.axis}


class OfPieces(keras.Layer):
    """What the layers share: Keras' layer within, and the maximum over what comes out."""

    inner_class: type[Any]
    size_name: str
    own = ("activity_regularizer",)
    """Keras' arguments that concern what comes out of the whole."""

    def __init__(self, size: int, pieces: int, activation: Any, options: dict[str, Any]) -> None:
        where = type(self).__name__
        known = [*keywords_of(type(self)), *keywords_of(self.inner_class), *OF_ANY_LAYER]
        refuse_unless_among(known, options, where)
        taken = ("name", "dtype", "trainable", *self.own)
        super().__init__(**{key: options.pop(key) for key in taken if key in options})
        self.pieces = count(pieces, where)
        self.size = count(size, where, self.size_name)
        if (groups := options.get("groups", 1)) and self.size % groups:
            raise ValueError(
                f"{where}: {self.size_name}={self.size} with groups={groups}; the pieces of a unit belong to one "
                f"group, so groups must divide {self.size_name}"
            )
        self.activation = keras.activations.get(activation)
        self.inner = self.inner_class(self.size * self.pieces, dtype=self.dtype_policy, name="pieces", **options)
        self.supports_masking = self.inner.supports_masking

    @property
    def channels(self) -> int:
        """The axis of the units."""
        return 1 if getattr(self.inner, "data_format", "") == "channels_first" else -1

    @property
    def kernel(self) -> Any:
        """The kernel of the layer within; piece j of unit u is number u * pieces + j of its last axis."""
        return self.inner.kernel

    @property
    def bias(self) -> Any:
        """The bias of the layer within, in the same order."""
        return self.inner.bias

    def build(self, input_shape: Any) -> None:
        """Build the layer within."""
        self.inner.build(input_shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The maximum of each unit's pieces."""
        return self.activation(maxout(self.inner(inputs), self.pieces, self.channels))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the layer within, the channels shrunk."""
        return shrunk(self.inner.compute_output_shape(input_shape), self.channels, self.pieces)

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        inner = self.inner.get_config()
        for key in ("name", "dtype", "trainable", "activation", self.size_name, *self.own):
            inner.pop(key, None)
        own = {self.size_name: self.size, "pieces": self.pieces}
        own["activation"] = keras.activations.serialize(self.activation)
        own["activity_regularizer"] = keras.regularizers.serialize(self.activity_regularizer)
        return {**super().get_config(), **inner, **own}


@serializable
class MaxoutDense(OfPieces):
    """A dense layer whose units are the maximum of several affine functions.

        y_u = activation(max_j (x W + b)_(u, j))

    Arguments:
        units: how many numbers come out.
        pieces: how many affine functions make a unit.
        activation: what the maxima go through; nothing by default.
        options: all other arguments of keras.layers.Dense.

    Returns:
        call(inputs): (..., features) becomes (..., units). `kernel` is (features, units * pieces), column
        u * pieces + j being piece j of unit u, `bias` likewise.

    Raises:
        TypeError, ValueError: where units or pieces is no integer above 0.

    Example:
        >>> import keras
        >>> from softplex.keras import MaxoutDense
        >>> layer = MaxoutDense(4, pieces=2)
        >>> keras.ops.shape(layer(keras.ops.zeros((5, 3)))), keras.ops.shape(layer.kernel)
        ((5, 4), (3, 8))

    Source: Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389.
    """

    inner_class = keras.layers.Dense
    size_name = "units"

    def __init__(self, units: int, pieces: int, activation: Any = None, **options: Any) -> None:
        super().__init__(units, pieces, activation, options)

    @property
    def units(self) -> int:
        """How many numbers come out."""
        return self.size


class MaxoutConvolution(OfPieces):
    """What the convolutions share."""

    size_name = "filters"

    def __init__(self, filters: int, kernel_size: Any, pieces: int, activation: Any = None, **options: Any) -> None:
        super().__init__(filters, pieces, activation, {"kernel_size": kernel_size, **options})

    @property
    def filters(self) -> int:
        """How many channels come out."""
        return self.size


CONVOLUTION = """A convolution whose channels are the maximum of several convolutions.

    y_u = activation(max_j (W * x + b)_(u, j))

Arguments:
    filters: how many channels come out.
    kernel_size: as in keras.layers.Conv{rank}D.
    pieces: how many convolutions make a channel.
    activation: what the maxima go through; nothing by default.
    options: all other arguments of keras.layers.Conv{rank}D. With groups the pieces of a channel stay in one group.

Returns:
    call(inputs): as keras.layers.Conv{rank}D. The last axis of `kernel` has filters * pieces entries, u * pieces + j
    being piece j of channel u.

Raises:
    TypeError, ValueError: where filters or pieces is no integer above 0, or groups does not divide filters.

Example:
    >>> import keras
    >>> from softplex.keras import MaxoutConv{rank}D
    >>> keras.ops.shape(MaxoutConv{rank}D(4, 3, pieces=2, padding="same")(keras.ops.zeros((1, *{sizes}, 2))))
    {shape}

Source: Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389.
"""


@serializable
class MaxoutConv1D(MaxoutConvolution):  # noqa: D101 - CONVOLUTION has the words
    __doc__ = CONVOLUTION.format(rank=1, sizes=(5,), shape=(1, 5, 4))
    inner_class = keras.layers.Conv1D


@serializable
class MaxoutConv2D(MaxoutConvolution):  # noqa: D101 - CONVOLUTION has the words
    __doc__ = CONVOLUTION.format(rank=2, sizes=(5, 5), shape=(1, 5, 5, 4))
    inner_class = keras.layers.Conv2D


def shrunk(shape: Any, axis: int, pieces: int) -> tuple[int | None, ...]:
    """A shape with units in place of units * pieces."""
    sizes = list(shape)
    size = sizes[axis]
    if size is not None and size % pieces:
        raise ValueError(f"Maxout: pieces={pieces} with an axis of length {size}; pieces must divide it")
    sizes[axis] = None if size is None else size // pieces
    return tuple(sizes)


def count(number: Any, where: str, name: str = "pieces") -> int:
    """A number of pieces or units, checked."""
    try:
        found = operator.index(number)
    except TypeError:
        raise TypeError(f"{where}: {name}={number!r} is not an integer; give how many there are") from None
    if found < 1:
        raise ValueError(f"{where}: {name}={found}; there is at least one")
    return found
