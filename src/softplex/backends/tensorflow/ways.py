"""How results are computed from tensors, and how TensorFlow differentiates them.

A result knows its way back: for weights and losses the one rule of core/derivatives.py, for all else the derivative of
the formulas (core/follow.py). Eagerly a rule is computed by NumPy, in a graph by operations, from the weights that the
forward pass found; what it gives knows its own way back. A forward pass pays for none of it. No formula lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from softplex.backends.numpy import NUMPY, NDArray
from softplex.backends.tensorflow.functions import Rounds, Tensor, TensorFlowFunctions
from softplex.core.arrays import Terms, each
from softplex.core.call import Asked, Call, Kind
from softplex.core.derivatives import gradient_of_loss, gradient_of_maximum, pulled_back, pushed_forward
from softplex.core.follow import Following
from softplex.core.formula import Formula, Hyper, Solution
from softplex.core.rows import Rows

Tensors = Sequence[Tensor]


Solved = list[Terms]
"""The weights that one call has solved for, in the order in which it did."""


class Recording(Rounds):
    """The namespace of a forward pass, which keeps the weights for the way back."""

    def __init__(self) -> None:
        super().__init__(TensorFlowFunctions, can_look=False, working=tf.float64)
        self.found: Solved = []

    def solved(self, formula: Formula, rows: Rows, hyper: Hyper) -> Solution:
        """The solution."""
        solution = formula.solution(rows, hyper)
        # They lead no way back themselves: through the solver's loop that would be.
        self.found.append(each(tf.stop_gradient, solution.weights))
        return solution


class Recalling(Rounds):
    """The namespace of a way back, which need not solve what the forward pass has solved."""

    def __init__(self, known: Solved) -> None:
        super().__init__(TensorFlowFunctions, can_look=False, working=tf.float64)
        self.known = iter(known)

    def solved(self, formula: Formula, rows: Rows, hyper: Hyper) -> Solution:
        """The solution, by its weights."""
        return formula.recalled(rows, hyper, next(self.known))


class Followed(Following):
    """TensorFlow's functions, differentiated; the solver's loop is not, nor is it run where its result is known."""

    def __init__(self, known: Solved | None = None) -> None:
        super().__init__(TensorFlowFunctions, working=tf.float64)
        self.plain = Rounds(TensorFlowFunctions, can_look=False, working=tf.float64)
        self.known = None if known is None else iter(known)

    def weights_of(self, formula: Formula, rows: Rows, hyper: Hyper) -> Terms:
        """The weights of detached rows, themselves detached."""
        if self.known is not None:
            return next(self.known)
        return each(tf.stop_gradient, super().weights_of(formula, rows, hyper))


class Work(NamedTuple):
    """What `run` was asked to do, and the floating tensors that take part, by the places that they have in it."""

    call: Call
    function: Callable[..., tuple[Any, ...]]
    operands: tuple[tuple[Kind, Tensor], ...]
    results: tuple[tuple[Kind, Any], ...]
    asked: Asked | None
    places: tuple[str | int, ...]
    """The names of the call's tensors, and the numbers of the operands that are floating."""

    def at(self, places: Sequence[str | int]) -> list[Tensor]:
        """The tensors at some places."""
        named = numbers_of(self.call)
        return [self.operands[place][1] if isinstance(place, int) else named[place] for place in places]

    @property
    def read(self) -> list[Tensor]:
        """All that is read."""
        call = self.call
        every = [*numbers_of(call).values(), call.where, call.invalid, *(tensor for _, tensor in self.operands)]
        return [one for one in every if tf.is_tensor(one)]

    @property
    def formula(self) -> Any:
        """The formula that was asked."""
        assert self.asked is not None
        return self.asked.formula

    def on(self, backend: Any) -> Call:
        """The call under another backend."""
        return self.call._replace(backend=backend)

    def local(self) -> Work:
        """The same work on tensors of the graph that is being made now."""
        call = self.call

        def here(value: Any) -> Any:
            return tf.identity(value) if tf.is_tensor(value) else value

        numbers = {name: here(number) for name, number in numbers_of(call).items()}
        call = call._replace(
            x=numbers["x"],
            temperature=numbers["temperature"],
            sink=numbers.get("sink"),
            hyper={name: numbers[name] for name in call.hyper},
            where=here(call.where),
            invalid=here(call.invalid),
        )
        operands = tuple((kind, here(tensor)) for kind, tensor in self.operands)
        return self._replace(call=call, operands=operands).with_tensors((), ())

    def with_tensors(self, places: Sequence[str | int], tensors: Tensors) -> Work:
        """The same work with other tensors at some places."""
        new = dict(zip(places, tensors, strict=True))
        hyper = {name: new.get(name, number) for name, number in self.call.hyper.items()}
        fields = {name: tensor for name, tensor in new.items() if name in ("x", "temperature", "sink")}
        call = self.call._replace(hyper=hyper, **fields)
        operands = tuple((kind, new.get(place, tensor)) for place, (kind, tensor) in enumerate(self.operands))
        asked = self.asked
        if asked is not None and asked.targets is not None:
            asked = replace(asked, targets=with_arrays(asked.targets, [tensor for _, tensor in operands]))
        return self._replace(call=call._replace(given=numbers_of(call)), operands=operands, asked=asked)


def numbers_of(call: Call) -> dict[str, Any]:
    """The scores and the parameters of a call."""
    sink = {} if call.sink is None else {"sink": call.sink}
    return {"x": call.x, "temperature": call.temperature, **sink, **call.hyper}


def with_arrays(targets: Any, arrays: Sequence[Any]) -> Any:
    """The targets of a loss as other arrays."""
    return replace(targets, y=arrays[0], weight=arrays[1] if targets.weight is not None else None)


def work_of(
    call: Call,
    function: Callable[..., tuple[Any, ...]],
    operands: Sequence[tuple[Kind, Tensor]],
    results: Sequence[tuple[Kind, Any]],
    asked: Asked | None,
) -> Work:
    """What `run` was asked to do."""
    named: list[str | int] = [name for name, number in numbers_of(call).items() if tf.is_tensor(number)]
    numbered = [place for place, (_, tensor) in enumerate(operands) if tensor.dtype.is_floating]
    return Work(call, function, tuple(operands), tuple(results), asked, (*named, *numbered))


class Tracks(NamedTuple):
    """What a forward pass leaves for the way back."""

    rule: Callable[[], Any]
    """Makes the backend of a rule; what that computes knows its own way back."""
    formulas: Callable[[], Any]
    """Makes the backend by which the formulas are differentiated."""


Way = Callable[[Work], tuple[list[Tensor], Tracks]]
Rule = Callable[[Work, Tracks, Tensors, Sequence[str | int]], Tensors]


def answered(work: Work, way: Way) -> list[Tensor]:
    """The results, each with a way back to the tensors that it was made of."""
    still = work.with_tensors(work.places, [tf.stop_gradient(tensor) for tensor in work.at(work.places)])
    results, tracks = way(still)
    if not all(dtype.is_floating for _, dtype in work.results):
        return results
    rule, places = way_back(work)
    found = followed(results, tracks, rule, work, places)
    rest = tuple(place for place in work.places if place not in places)
    if not rest:
        return found
    # A tape asks a way back for all that it leads to, wanted or not: what takes long has a way of its own.
    zeros = followed([tf.zeros_like(one) for one in found], tracks, differentiated, work, rest)
    return [one + zero for one, zero in zip(found, zeros, strict=True)]


def followed(results: Tensors, tracks: Tracks, rule: Rule, work: Work, places: Sequence[str | int]) -> list[Tensor]:
    """The results, with a way back to the tensors at some places."""

    @tf.custom_gradient
    def forward(*tensors: Tensor) -> tuple[list[Tensor], Callable[..., Tensors]]:
        now = work.with_tensors(places, tensors)
        return list(results), lambda *cotangents: rule(now, tracks, cotangents, places)

    found: list[Tensor] = forward(*work.at(places))
    return found


def way_back(work: Work) -> tuple[Rule, tuple[str | int, ...]]:
    """A rule that goes back, and where it leads."""
    asked = work.asked
    if asked is None:
        return differentiated, work.places
    if asked.method == "value":
        return back_from_value, work.places
    if asked.method in LINEAR and asked.names == ("x",) and isinstance(asked.formula, Formula):
        return LINEAR[asked.method], (0,)
    if asked.method in BACK_TO_SCORES:
        return BACK_TO_SCORES[asked.method], ("x",)
    return differentiated, work.places


def back_from_value(work: Work, tracks: Tracks, cotangents: Tensors, places: Sequence[Any]) -> Tensors:
    """The vjp."""
    kind, _ = work.results[0]
    shape = work.call.x.shape if kind == "entries" else work.call.batch
    g = TensorFlowFunctions.reshape(cotangents[0], shape)
    return pulled_back(work.on(tracks.rule()), work.formula, g, places)


def back_from_vjp(work: Work, tracks: Tracks, cotangents: Tensors, places: Sequence[Any]) -> Tensors:
    """g^T J is linear in g: the jvp."""
    return (pushed_forward(work.on(tracks.rule()), work.formula, cotangents[0]),)


def back_from_jvp(work: Work, tracks: Tracks, cotangents: Tensors, places: Sequence[Any]) -> Tensors:
    """J t is linear in t: the vjp."""
    return pulled_back(work.on(tracks.rule()), work.formula, cotangents[0], ("x",))


def back_from_loss(work: Work, tracks: Tracks, cotangents: Tensors, places: Sequence[Any]) -> Tensors:
    """The gradient of the rows' losses, each times its cotangent; the rows' weights know nothing of the scores."""
    assert work.asked is not None
    return (gradient_of_loss(work.on(tracks.rule()), work.asked, cotangents[0]),)


def back_from_maximum(work: Work, tracks: Tracks, cotangents: Tensors, places: Sequence[Any]) -> Tensors:
    """The weights."""
    return (gradient_of_maximum(work.on(tracks.rule()), work.formula, cotangents[0]),)


LINEAR: dict[str, Rule] = {"vjp": back_from_vjp, "jvp": back_from_jvp}
BACK_TO_SCORES: dict[str, Rule] = {
    "loss": back_from_loss,
    "cross_entropy": back_from_loss,
    "smooth_max": back_from_maximum,
}


def differentiated(work: Work, tracks: Tracks, cotangents: Tensors, places: Sequence[str | int]) -> Tensors:
    """Cotangents of the tensors through the formulas, in operations that are themselves differentiable."""

    def computed(tensors: Tensors) -> list[Tensor]:
        again = work.with_tensors(places, tensors)
        results: list[Tensor] = tracks.formulas().run(
            again.call, again.function, again.operands, again.results, None, again.asked
        )
        return results

    def in_graph(tensors: Tensors, cotangents: Tensors) -> Tensors:
        tensors = [tf.identity(tensor) for tensor in tensors]
        zero = tf.UnconnectedGradients.ZERO
        found: Tensors = tf.gradients(computed(tensors), tensors, cotangents, unconnected_gradients=zero)
        return found

    tensors, cotangents = work.at(places), list(cotangents)
    if not tf.executing_eagerly():
        return in_graph(tensors, cotangents)
    if not tapes_record():
        return tf.function(in_graph, autograph=False)(tensors, cotangents)  # type: ignore[no-any-return]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        results = computed(tensors)
    gradients: Tensors = tape.gradient(results, tensors, cotangents, tf.UnconnectedGradients.ZERO)
    return gradients


def tapes_record() -> bool:
    """Whether tapes record at all now: forward mode goes ways back while none may."""
    one = tf.ones(())
    with tf.GradientTape() as tape:
        tape.watch(one)
        same = tf.identity(one)
    return tape.gradient(same, one) is not None


def computed_by_numpy(work: Work) -> list[Tensor]:
    """The results as NumPy computes them."""
    call = call_on_arrays(work.call)
    operands = [(kind, viewed(tensor)) for kind, tensor in work.operands]
    asked = work.asked
    if asked is not None and asked.targets is not None:
        asked = replace(asked, targets=with_arrays(asked.targets, [array for _, array in operands]))
    kinds = [(kind, np.dtype(dtype.as_numpy_dtype)) for kind, dtype in work.results]
    found = NUMPY.run(call, work.function, operands, kinds, None, asked)
    return [tf.convert_to_tensor(array) for array in found]


def call_on_arrays(call: Call) -> Call:
    """The call on views of its tensors."""
    numbers = {name: viewed(number) for name, number in numbers_of(call).items()}
    return call._replace(
        backend=NUMPY,
        x=numbers["x"],
        dtype=np.dtype(call.dtype.as_numpy_dtype),
        temperature=numbers["temperature"],
        sink=numbers.get("sink"),
        hyper={name: numbers[name] for name in call.hyper},
        where=viewed(call.where),
        given=numbers,
    )


def viewed(value: Any) -> Any:
    """A tensor's memory as NumPy sees it; numbers as they are."""
    array: NDArray = np.asarray(value) if tf.is_tensor(value) else value
    return array
