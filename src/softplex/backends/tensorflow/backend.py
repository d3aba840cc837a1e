"""The contract of a backend, for TensorFlow: what the arguments are, and by which of two ways they are computed.

Eager tensors on the CPU are computed by NumPy, kernels and all; those of a graph, or on another device, by the formulas
as operations. How either is differentiated stands in ways.py. No formula lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from softplex.backends.array_api import ArrayApiBackend, divisor_of
from softplex.backends.tensorflow import ways
from softplex.backends.tensorflow.functions import Rounds, Tensor, TensorFlowFunctions
from softplex.core.arrays import Namespace, each
from softplex.core.call import Asked, Call, Kind


def backend_for(x: Any) -> TensorFlowBackend:
    """The backend of a tensor or variable."""
    return EAGER if is_plain(x) else GRAPH


def is_plain(x: Any) -> bool:
    """Whether the numbers of a tensor may be read where they lie."""
    if not tf.executing_eagerly() or isinstance(x, tf.Variable):
        return isinstance(x, tf.Variable) and tf.executing_eagerly() and is_on_cpu(x)
    return isinstance(x, tf.Tensor) and not tf.is_symbolic_tensor(x) and is_on_cpu(x)


def is_on_cpu(x: Any) -> bool:
    """Whether the numbers of a tensor lie in this machine's own memory."""
    return x.device == "" or "CPU:" in x.device


def is_vectorized() -> bool:
    """Whether tf.vectorized_map looks on: it forgets rules of gradients, and what it makes would have none at all.

    It names the scope in which it does so.
    """
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None:
        if any(part.startswith("loop_body") for part in graph.get_name_scope().split("/")):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


class Formulas(ArrayApiBackend):
    """Formulas as TensorFlow's operations, in a namespace that says how they are differentiated."""

    def __init__(self, xp: Namespace, *, can_look: bool = False) -> None:
        self.functions = TensorFlowFunctions
        self.root = "tensorflow"
        self.can_look = can_look
        self.working = tf.float64
        self.xp = xp

    def is_array(self, value: Any) -> bool:
        """Whether a value is a tensor or a variable, dense or not."""
        return bool(tf.is_tensor(value))

    def _converted(self, value: Any, what: str) -> Tensor:
        """A dense tensor of floats, integers or booleans."""
        if self.is_array(value):
            if not isinstance(value, (tf.Tensor, tf.Variable)):
                raise TypeError(f"{what} is a tf.{type(value).__name__}; give a dense tensor, padded and masked")
            if value.shape.rank is None:
                raise ValueError(f"{what} has an unknown number of dimensions in this graph; set its shape")
            value = tf.convert_to_tensor(value)
        return super()._converted(value, what)

    def result_dtype(self, x: Tensor, dtype: Any, name: str) -> Any:
        """The dtype asked for, else that of floating scores, else float32."""
        is_float = dtype is not None or x.dtype.is_floating
        return super().result_dtype(x, dtype, name) if is_float else tf.float32

    def as_mask(self, where: Any, name: str) -> Tensor:
        """A bool tensor."""
        return tf.convert_to_tensor(super().as_mask(where, name))

    def first_where(self, values: Any, flags: Any) -> Any:
        """The first flagged value."""
        if not tf.is_tensor(values):
            return super().first_where(values, flags)
        return tf.boolean_mask(values, flags)[0].numpy().item()

    def reduced(
        self, values: Tensor, weights: Tensor | None, counted: Tensor | None, dtype: Any, reduction: str
    ) -> Tensor:
        """None, the sum or the mean of the rows' losses, however many there are."""
        if reduction == "none":
            return tf.cast(values, dtype)
        total = tf.reduce_sum(values)
        if reduction == "mean":
            count = tf.maximum(tf.cast(tf.size(values), self.working), 1.0)
            divisor = count if weights is None else divisor_of(self.xp, tf.reduce_sum(weights))
            if counted is not None:
                divisor = self.xp.where(tf.reduce_any(counted), divisor, 1.0)
            total = total / divisor
        return tf.cast(total, dtype)

    def _spread(self, mask: Tensor, x: Tensor) -> Tensor:
        """A mask in the shape of x, whose sizes may be unknown."""
        found = tf.broadcast_to(mask, tf.shape(x))
        found.set_shape(x.shape)
        return found

    def _lines(self, call: Call, array: Tensor) -> Tensor:
        """An array of x's shape as batch + (n,), n being found as the graph runs if it must be."""
        if len(call.axes) == 1 or call.length is not None:
            return super()._lines(call, array)
        sizes = tf.gather(tf.shape(array), self._order(call))
        count = len(call.batch)
        shape = tf.concat([sizes[:count], [tf.reduce_prod(sizes[count:])]], 0)
        found = tf.reshape(tf.transpose(array, self._order(call)), shape)
        found.set_shape((*call.batch, None))
        return found

    def _unfolded(self, call: Call, lines: Tensor) -> Tensor:
        """Lines with the normalised axes apart again."""
        if len(call.axes) == 1 or call.length is not None:
            return super()._unfolded(call, lines)
        found = tf.reshape(lines, tf.gather(tf.shape(call.x), self._order(call)))
        found.set_shape([call.x.shape[axis] for axis in self._order(call)])
        return found


class TensorFlowBackend(Formulas):
    """Tensors that cannot be looked at; results know their way back."""

    def run(
        self,
        call: Call,
        function: Callable[..., tuple[Tensor, ...]],
        operands: Sequence[tuple[Kind, Tensor]],
        results: Sequence[tuple[Kind, Any]],
        out: Any = None,
        asked: Asked | None = None,
    ) -> list[Tensor]:
        """Apply a function of rows."""
        if out is not None:
            self.copied_into(out, None, call.name)
        call = call._replace(x=tf.cast(call.x, call.dtype))
        if is_vectorized():
            return self.followed().run(call, function, operands, results, None, asked)
        return self._answered(ways.work_of(call, function, operands, results, asked))

    def _answered(self, work: ways.Work) -> list[Tensor]:
        """The results."""
        return ways.answered(work, self.way)

    def followed(self) -> Formulas:
        """The formulas as differentiable operations."""
        return Formulas(ways.Followed())

    def way(self, work: ways.Work) -> tuple[list[Tensor], ways.Tracks]:
        """How results are computed: by the formulas."""
        xp = ways.Recording()
        results = Formulas(xp).run(work.call, work.function, work.operands, work.results, None, work.asked)
        return results, tracks_of(xp.found)


class EagerBackend(TensorFlowBackend):
    """Tensors on the CPU, outside of graphs."""

    def look(self, flags: Any) -> bool | None:
        """Whether all flags are set, if that may be looked at."""
        if tf.is_tensor(flags):
            return bool(tf.reduce_all(flags).numpy()) if is_plain(flags) else None
        return super().look(flags)

    def way(self, work: ways.Work) -> tuple[list[Tensor], ways.Tracks]:
        """By NumPy, if all that takes part can be read."""
        if not all(map(is_plain, work.read)):
            return super().way(work)
        tracks = ways.Tracks(lambda: self if tf.executing_eagerly() else self.followed(), self.followed)
        return ways.computed_by_numpy(work), tracks


class BackwardBackend(TensorFlowBackend):
    """For a rule on the way back, from weights that are known."""

    def __init__(self, found: ways.Solved) -> None:
        super().__init__(ROUNDS)
        self.found = found

    def _answered(self, work: ways.Work) -> list[Tensor]:
        """The results. What knows its own way back must be of one graph: TensorFlow loses tensors of another."""
        if not tf.executing_eagerly():
            self.found = [each(tf.identity, weights) for weights in self.found]
            work = work.local()
        return super()._answered(work)

    def followed(self) -> Formulas:
        """The formulas as differentiable operations."""
        return Formulas(ways.Followed(self.found))

    def way(self, work: ways.Work) -> tuple[list[Tensor], ways.Tracks]:
        """By the formulas, without solving anything."""
        backend = Formulas(ways.Recalling(self.found))
        results = backend.run(work.call, work.function, work.operands, work.results, None, work.asked)
        return results, tracks_of(self.found)


def tracks_of(found: ways.Solved) -> ways.Tracks:
    """The ways back from weights that have been found."""
    return ways.Tracks(lambda: BackwardBackend(found), lambda: Formulas(ways.Followed(found)))


ROUNDS = Rounds(TensorFlowFunctions, can_look=False, working=tf.float64)
GRAPH = TensorFlowBackend(ROUNDS)
EAGER = EagerBackend(ROUNDS, can_look=True)
