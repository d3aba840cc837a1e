"""The one primitive of JAX programs: any method of any map on whole arrays. How it is differentiated: derivatives.py.

A program that runs on one CPU device has the compiled kernels; wherever else it runs, and where it is exported or the
scores may be sharded, the formulas stand in it, whose sums a partitioner understands. No formula lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from softplex.backends.jax.work import Work
from softplex.core.arrays import Array
from softplex.core.call import Kind

PROGRAMS = 256
"""How many calls outside of compiled functions are kept compiled; each takes a megabyte or more."""

softplex_p = Primitive("softplex")
softplex_p.multiple_results = True


def bind(work: Work, *arrays: Array) -> list[Array]:
    """The results of a work."""
    if not jax.sharding.get_abstract_mesh().empty:
        arrays = alike_in_shards(arrays)
    found: list[Array] = softplex_p.bind(*arrays, work=work)
    return found


def alike_in_shards(arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Within shard_map, arrays that differ from shard to shard along the same axes: so do all cotangents then."""
    axes = [varying(jax.typeof(array)) for array in arrays]
    every: frozenset[Any] = frozenset().union(*axes)
    pairs = zip(arrays, axes, strict=True)
    return tuple([made_varying(array, tuple(every - own)) if every - own else array for array, own in pairs])


def varying(aval: Any) -> frozenset[Any]:
    """The axes of the mesh along which shards differ; JAX has moved and renamed what says so."""
    known = getattr(aval, "mat", None)
    found: frozenset[Any] = getattr(aval, "vma", frozenset()) if known is None else known.varying
    return found


def made_varying(array: Array, axes: tuple[Any, ...]) -> Array:
    """The same numbers, no longer said to be alike."""
    lax: Any = jax.lax
    return lax.pcast(array, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(array, axes)


@lru_cache(maxsize=PROGRAMS)
def compiled(work: Work) -> Callable[..., list[Array]]:
    """A work as a program of its own."""
    return jax.jit(lambda *arrays: softplex_p.bind(*arrays, work=work))


@softplex_p.def_impl
def _run(*arrays: Array, work: Work) -> list[Array]:
    free, given = work.with_free_numbers(arrays)
    # Where these are on, JAX runs programs operation by operation; this one's only operation is itself.
    with jax.disable_jit(False), jax.debug_nans(False):
        return compiled(free)(*given)


@softplex_p.def_abstract_eval
def _described(*avals: ShapedArray, work: Work) -> list[ShapedArray]:
    """The results' shapes; on a mesh whose axes are parts of types, what the formulas make of these."""
    if not jax.sharding.get_abstract_mesh().empty:
        described = jax.make_jaxpr(work.by_formulas)(*avals)
        return list(described.out_avals)
    shape, dtypes = avals[0].shape, [dtype for _, dtype in work.results]
    batch = tuple([size for axis, size in enumerate(shape) if axis not in work.axes])
    length = 1
    for axis in work.axes:
        length *= shape[axis]
    shapes = {"entries": shape, "row": batch, "matrix": (*batch, length, length)}
    return [ShapedArray(shapes[kind], dtype) for (kind, _), dtype in zip(work.results, dtypes, strict=True)]


def _by_formulas(*arrays: Array, work: Work) -> list[Array]:
    return work.by_formulas(*arrays)


def _by_kernels(*arrays: Array, work: Work) -> list[Array]:
    """By the compiled kernels where there are any for it."""
    from softplex.backends.jax.kernels import computed

    call, operands = work.call_of(arrays)
    found = computed(work.exactly(call, arrays), work.asked, operands)
    if found is None:
        return work.by_formulas(*arrays)
    if len(found) < len(work.results):  # of a vjp, the part in x
        rest = work.by_formulas(*arrays)
        place = work.asked.names.index("x")
        return [*rest[:place], found[0], *rest[place + 1 :]]
    return [jnp.asarray(one, dtype) for one, (_, dtype) in zip(found, work.results, strict=True)]


def is_whole(ctx: Any) -> bool:
    """Whether a program surely runs where each device sees whole arrays, and in this process."""
    module = ctx.module_context
    if module.lowering_parameters.for_export:
        return False
    context = module.axis_context
    if isinstance(context, mlir.ShardingContext):
        return bool(context.num_devices == 1)
    if isinstance(context, mlir.SPMDAxisContext):
        return frozenset(context.mesh.axis_names) <= context.manual_axes
    return False


lowered_by_formulas = mlir.lower_fun(_by_formulas, multiple_results=True)
lowered_by_kernels = mlir.lower_fun(_by_kernels, multiple_results=True)


def _lowered_on_cpu(ctx: Any, *arrays: Any, work: Work) -> Sequence[Any]:
    rule = lowered_by_kernels if work.uses_kernels and is_whole(ctx) else lowered_by_formulas
    lowered: Sequence[Any] = rule(ctx, *arrays, work=work)
    return lowered


mlir.register_lowering(softplex_p, lowered_by_formulas)
mlir.register_lowering(softplex_p, _lowered_on_cpu, platform="cpu")


def _batched(arrays: Sequence[Array], dims: Sequence[Any], *, work: Work) -> tuple[list[Array], list[int]]:
    """One more axis before the others; what is not batched stays of size 1 there where that will do."""
    kinds: list[Kind | None] = ["entries", *[None] * (len(work.arrays) - 1), *work.operands]
    pairs = list(zip(arrays, dims, kinds, strict=True))
    if any(kind == "classes" and dim is not None for _, dim, kind in pairs):
        from softplex.backends.jax.derivatives import following

        # Whoever differentiates the batch meets these operations: they hold no solver.
        by_formulas = partial(work.by_formulas, following=following(work.working, work.uses_kernels))
        found = jax.vmap(by_formulas, in_axes=tuple(dims))(*arrays)
        return found, [0] * len(found)
    size = next(array.shape[dim] for array, dim, _ in pairs if dim is not None)

    def front(array: Array, dim: Any, kind: Kind | None) -> Array:
        if dim is not None:
            return jnp.moveaxis(array, dim, 0)
        if kind == "classes":
            return array
        return array[None] if kind is None else jnp.broadcast_to(array[None], (size, *array.shape))

    found = bind(work.batched(), *[front(*pair) for pair in pairs])
    return found, [0] * len(found)


batching.primitive_batchers[softplex_p] = _batched
