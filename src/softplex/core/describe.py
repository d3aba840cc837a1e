"""The words about a map, made from what the map says of itself: docstring and signature. No map is named here."""

from __future__ import annotations

import inspect
from textwrap import dedent, indent
from typing import Any

from softplex.core.formula import Formula, Parameter

ARGUMENTS = """
Arguments:
    x: scores of any shape: a NumPy array, list or number, an array or tensor of JAX, PyTorch, TensorFlow or Keras, or
        an array of another array-API library; float64, float32, float16 or bfloat16 (integers and booleans become the
        default float).
    axis: the axis, or tuple of axes, along which the weights are made; None for all. `dim` means the same.
    temperature: positive and finite; a scalar, or an array that broadcasts against x with size 1 along the axis.
    where: booleans that broadcast to x; False entries weigh 0, pass no gradient and may hold anything.
    sink: the score of one more competitor, which takes weight and is left out of the result.
    empty: what a row with nothing to weigh becomes, "zero" or "nan".
    dtype: the dtype that x is cast to first and that the result has.
    out: for NumPy's arrays only, one for the result; may be x itself.
""".strip()

RETURNS = """
Returns:
    An array of the library and the shape of x, which that library differentiates if it can. Methods: vjp, jvp,
    jacobian, support_size, regularizer, smooth_max, loss, residual, bind.

Raises:
    TypeError: for a dtype or keyword that is not taken.
    ValueError: (AxisError for a bad axis) for numbers and shapes that are not allowed.
""".strip()


def docstring(formula: Formula, summary: str, equation: str, source: str, example: str) -> str:
    """The docstring of a map."""
    takes = "".join(f"\n    {p.name}: {p.rule(None)}{default_of(p)}." for p in formula.parameters)
    parts = [
        summary,
        indent(equation, "    "),
        ARGUMENTS + takes,
        RETURNS,
        "Example:\n" + indent(dedent(example).strip(), "    ") if example else "",
        f"Source: {source}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def default_of(parameter: Parameter) -> str:
    """The default in words."""
    return "; must be given" if parameter.default is None else f"; default {parameter.default:g}"


def call_signature(parameters: tuple[Parameter, ...]) -> inspect.Signature:
    """The signature of a call, hyper-parameters named."""

    def call(
        x: Any,
        axis: Any = -1,
        *,
        temperature: Any = 1.0,
        where: Any = None,
        sink: Any = None,
        empty: str = "zero",
        dtype: Any = None,
        out: Any = None,
    ) -> Any: ...

    signature = inspect.signature(call)
    named = [
        inspect.Parameter(
            p.name, inspect.Parameter.KEYWORD_ONLY, default=inspect.Parameter.empty if p.default is None else p.default
        )
        for p in parameters
    ]
    return signature.replace(parameters=[*signature.parameters.values(), *named])
