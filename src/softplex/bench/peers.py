"""The peers: what each offers, as calls on prepared inputs. A framework is imported when its peer is asked for.

A peer may have several ways to the same result; the fastest counts as the peer's (see `ratios`). A way that writes to a
place it is given is marked as preallocated, and is compared with softplex doing likewise; one that makes its result
anew with softplex making its own anew. Own calls are here too, for the comparisons of softplex with itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import softplex as sx
from softplex.bench import array_peers, tensor_peers
from softplex.bench.inputs import Inputs
from softplex.bench.ways import Prepare, Way, tensor_of
from softplex.system import installed_version

ALPHA = 1.3


@dataclass(frozen=True)
class Peer:
    """A library's functions by the names that `cases` asks for."""

    name: str
    package: str
    functions: Mapping[str, Prepare]
    threads: str = "as asked"


# ---- softplex, and its functions as a measure of one another


def softplex_peer() -> Peer:
    """Every function that is measured."""
    maps = ("softmax", "log_softmax", "softmin", "sparsemax", "entmax15")
    functions: dict[str, Prepare] = {name: partial(own_ways, getattr(sx, name)) for name in maps}
    functions["entmax(1.3)"] = partial(own_ways, sx.entmax.bind(alpha=ALPHA))
    functions["softmax(where)"] = lambda inputs: own_ways(sx.softmax, inputs, where=inputs.mask)
    functions["softmax.vjp"] = lambda inputs: [
        Way("fresh", False, partial(sx.softmax.vjp, inputs.x, inputs.cotangent, **own_axis(inputs)))
    ]
    return Peer("softplex", "softplex", functions | tensor_peers.own_functions() | array_peers.own_functions())


def own_softmax_peer() -> Peer:
    """Our softmax to a given place, whatever is asked for."""

    def ways(inputs: Inputs) -> list[Way]:
        return own_ways(sx.softmax, inputs)[1:]

    return Peer("own softmax", "softplex", dict.fromkeys(("sparsemax", "entmax15", "softmax(where)"), ways))


def own_ways(chosen: sx.Map, inputs: Inputs, **options: Any) -> list[Way]:
    """A map that makes its result anew, and one that is given a place for it."""
    call = partial(chosen, inputs.x, **own_axis(inputs), **options)
    return [Way("fresh", False, call), Way("out=", True, partial(call, out=inputs.out))]


def own_axis(inputs: Inputs) -> dict[str, Any]:
    """The last axis is not said, as users do not say it."""
    return {} if inputs.axis == -1 else {"axis": inputs.axis}


# ---- SciPy and JAX


def scipy_peer() -> Peer:
    """SciPy has no place for a result, no softmin and no threads."""
    special = importlib.import_module("scipy.special")

    def ways(function: Callable[..., Any], inputs: Inputs) -> list[Way]:
        return [Way("fresh", False, partial(function, inputs.x, axis=inputs.axis))]

    def softmin(inputs: Inputs) -> list[Way]:
        return [Way("softmax(-x)", False, lambda: special.softmax(-inputs.x, axis=inputs.axis))]

    return Peer(
        "SciPy",
        "scipy",
        {
            "softmax": partial(ways, special.softmax),
            "log_softmax": partial(ways, special.log_softmax),
            "softmin": softmin,
        },
        threads="1: it has no threads",
    )


def jax_peer() -> Peer:
    """Compiled functions on arrays that are on JAX's device, waited for."""
    jax = importlib.import_module("jax")

    def ways(function: Callable[..., Any], inputs: Inputs) -> list[Way]:
        compiled = jax.jit(partial(function, axis=inputs.axis))
        x = jax.device_put(inputs.x)
        return [Way("jit", False, lambda: compiled(x).block_until_ready())]

    def softmin(x: Any, axis: int) -> Any:
        return jax.nn.softmax(-x, axis=axis)

    return Peer(
        "JAX",
        "jax",
        {
            "softmax": partial(ways, jax.nn.softmax),
            "log_softmax": partial(ways, jax.nn.log_softmax),
            "softmin": partial(ways, softmin),
            **array_peers.jax_functions(),
        },
        threads=f"a pool of its own, sized by the processors ({os.cpu_count()}), whatever is asked for",
    )


def jax_softmax_peer() -> Peer:
    """JAX's softmax as a measure for the maps that JAX lacks."""
    return Peer("JAX's softmax", "jax", array_peers.measure_functions(), threads="as JAX")


def optax_peer() -> Peer:
    """The simplex by sorting, compiled by JAX."""
    return Peer("optax", "optax", array_peers.optax_functions(), threads="as JAX")


# ---- PyTorch, and entmax, which runs on it


def torch_peer() -> Peer:
    """Results anew and, often much faster, to a given place."""
    torch = importlib.import_module("torch")

    def ways(function: Callable[..., Any], inputs: Inputs) -> list[Way]:
        call = partial(function, tensor_of(inputs.x), inputs.axis)
        return [Way("fresh", False, call), Way("out=", True, partial(call, out=tensor_of(inputs.out)))]

    def softmin(inputs: Inputs) -> list[Way]:
        x, out, negative = tensor_of(inputs.x), tensor_of(inputs.out), tensor_of(np.ones_like(inputs.x))

        def to_place() -> Any:
            return torch.softmax(torch.neg(x, out=negative), inputs.axis, out=out)

        return [
            Way("softmax(-x)", False, lambda: torch.softmax(-x, inputs.axis)),
            Way("softmax(-x), out=", True, to_place),
        ]

    return Peer(
        "PyTorch",
        "torch",
        {
            "softmax": partial(ways, torch.softmax),
            "log_softmax": partial(ways, torch.log_softmax),
            "softmin": softmin,
            **tensor_peers.torch_functions(),
        },
    )


def torch_backward_peer() -> Peer:
    """autograd.grad over a graph that is kept: y is there already, softplex computes it from x."""
    torch = importlib.import_module("torch")

    def vjp(inputs: Inputs) -> list[Way]:
        x, g = tensor_of(inputs.x).requires_grad_(), tensor_of(inputs.cotangent)
        y = torch.softmax(x, inputs.axis)
        return [Way("autograd.grad", False, lambda: torch.autograd.grad(y, x, g, retain_graph=True)[0])]

    return Peer("PyTorch's backward", "torch", {"softmax.vjp": vjp})


def torch_operator_peer() -> Peer:
    """The operator that autograd calls in the end, given y."""
    torch = importlib.import_module("torch")

    def vjp(inputs: Inputs) -> list[Way]:
        x, g = tensor_of(inputs.x), tensor_of(inputs.cotangent)
        y = torch.softmax(x, inputs.axis)
        return [Way("operator", False, partial(torch._softmax_backward_data, g, y, inputs.axis, x.dtype))]

    return Peer("PyTorch's operator", "torch", {"softmax.vjp": vjp})


def torch_both_peer() -> Peer:
    """Forward and backward together: what softplex's VJP does."""
    torch = importlib.import_module("torch")

    def vjp(inputs: Inputs) -> list[Way]:
        x, g = tensor_of(inputs.x).requires_grad_(), tensor_of(inputs.cotangent)
        return [Way("autograd.grad", False, lambda: torch.autograd.grad(torch.softmax(x, inputs.axis), x, g)[0])]

    return Peer("PyTorch, with forward", "torch", {"softmax.vjp": vjp})


def entmax_peer(name: str = "entmax", **options: Any) -> Peer:
    """The package's functions, which sort; with k only the k largest at first."""
    entmax = importlib.import_module("entmax")

    def ways(function: Callable[..., Any], inputs: Inputs) -> list[Way]:
        return [Way("fresh", False, partial(function, tensor_of(inputs.x), dim=inputs.axis, **options))]

    return Peer(
        name,
        "entmax",
        {
            "sparsemax": partial(ways, entmax.sparsemax),
            "entmax15": partial(ways, entmax.entmax15),
            **tensor_peers.entmax_functions(),
        },
    )


def bisect_peer() -> Peer:
    """The package's function for any alpha."""
    entmax = importlib.import_module("entmax")

    def ways(inputs: Inputs) -> list[Way]:
        return [Way("fresh", False, partial(entmax.entmax_bisect, tensor_of(inputs.x), ALPHA, inputs.axis))]

    learned = partial(tensor_peers.learned_step, entmax.entmax_bisect)
    return Peer("entmax_bisect", "entmax", {"entmax(1.3)": ways, "step entmax, learned": learned})


# ---- the limit: a copy, which reads and writes as much


def copy_peer() -> Peer:
    """The fastest copy there is here: NumPy's, PyTorch's with threads, the library's own with streaming stores."""
    copies = {
        "NumPy": numpy_copy,
        **found("PyTorch", torch_copy),
        **found("softplex", streaming_copy),
    }

    def ways(inputs: Inputs) -> list[Way]:
        return [Way(name, True, make(inputs)) for name, make in copies.items()]

    return Peer("streaming copy", "softplex", dict.fromkeys(("softmax", "log_softmax", "softmin"), ways))


def found(name: str, make: Callable[[], Callable[[Inputs], Callable[[], Any]]]) -> dict[str, Any]:
    """A copy under its name; nothing where it is missing."""
    try:
        return {name: make()}
    except (ImportError, AttributeError):
        return {}


def numpy_copy(inputs: Inputs) -> Callable[[], Any]:
    """One thread."""
    return partial(np.copyto, inputs.out, inputs.x)


def torch_copy() -> Callable[[Inputs], Callable[[], Any]]:
    """PyTorch's threads."""
    importlib.import_module("torch")
    return lambda inputs: partial(tensor_of(inputs.out).copy_, tensor_of(inputs.x))


def streaming_copy() -> Callable[[Inputs], Callable[[], Any]]:
    """Streaming stores, softplex's threads; only where the kernels are compiled."""
    copy = importlib.import_module("softplex.native._cpu").streaming_copy
    return lambda inputs: partial(copy, inputs.out, inputs.x, sx.get_num_threads())


# ---- all of them


PEERS: Mapping[str, Callable[[], Peer]] = {
    "softplex": softplex_peer,
    "own softmax": own_softmax_peer,
    "PyTorch": torch_peer,
    "SciPy": scipy_peer,
    "JAX": jax_peer,
    "JAX's softmax": jax_softmax_peer,
    "optax": optax_peer,
    "PyTorch's backward": torch_backward_peer,
    "PyTorch's operator": torch_operator_peer,
    "PyTorch, with forward": torch_both_peer,
    "entmax": entmax_peer,
    "entmax, k=100": partial(entmax_peer, "entmax, k=100", k=100),
    "entmax_bisect": bisect_peer,
    "streaming copy": copy_peer,
}


def load(names: Iterable[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers of these names that can be imported, and why the others cannot."""
    present: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            present[name] = PEERS[name]()
        except ImportError as error:
            absent[name] = str(error).partition("\n")[0]
    return present, absent


def versions(peers: Mapping[str, Peer]) -> dict[str, str]:
    """The version of each package behind the peers."""
    packages = dict.fromkeys(peer.package for peer in peers.values() if peer.package != "softplex")
    return {package: version for package in packages if (version := installed_version(package)) is not None}


@contextmanager
def equal_threads(number: int) -> Iterator[None]:
    """The same number of threads for softplex and for PyTorch, if that has been imported; afterwards as before."""
    own, torch = sx.get_num_threads(), sys.modules.get("torch")
    torchs = torch.get_num_threads() if torch else None
    sx.set_num_threads(number)
    if torch:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        sx.set_num_threads(own)
        if torch:
            torch.set_num_threads(torchs)
