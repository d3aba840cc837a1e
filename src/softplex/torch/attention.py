"""Attention with any map, exact, whose memory does not grow with the square of the length: by tiles, computed again.

What the weights of a row are is the map's business; here are the tiles, the masks and the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from softplex.backends.torch.modes import transforms_are_active
from softplex.core.map import Map
from softplex.maps import softmax
from softplex.torch.activations import a_map
from softplex.torch.precision import cast_dtype, uncast

TILE = 2**22
"""How many scores are held at a time: 16 MiB in float32, which caches still help with."""


class Inputs(NamedTuple):
    """What a tile is computed from: tensors as deep as the scores, of their sizes or 1 in the leading dimensions."""

    q: Tensor
    k: Tensor
    v: Tensor
    where: Tensor | None
    """Booleans that broadcast to the scores."""
    added: Tensor | None
    """Numbers that broadcast to the scores."""
    sink: float | Tensor | None
    """A number, or numbers that broadcast to the scores, of size 1 in the last two dimensions."""
    start: int = 0
    """Which query is the first."""


class Setting(NamedTuple):
    """What is the same in every tile."""

    map: Map
    scale: float
    causal: bool


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    map: Map = softmax,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    sink: float | Tensor | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention: of each query the mean of the values, weighed by a map of its scores against the keys.

        map(scale * q k^T) v

    Up to 2^22 scores are held at a time (16 MiB in float32). Where there are more, tiles of queries are computed one
    by one, and again in backward; what is kept is the inputs. 16-bit inputs are computed in float32 and rounded once.

    Arguments:
        q: queries (..., L, E), floating.
        k: keys (..., S, E).
        v: values (..., S, F). Leading dimensions broadcast.
        map: any map of weights, bound ones and blends too.
        mask: booleans (True takes part), or numbers that are added to the scores; broadcasts to (..., L, S). A key
            that no query sees, or a query that sees no key, may hold anything, NaN included.
        causal: whether query i sees the keys j <= i only; a mask given along with it holds too.
        scale: of the scores; 1 / sqrt(E) if it is None.
        sink: the score of one more competitor in each row, which takes weight and has no value: a number, or a tensor
            of one number a head, (heads,), heads being the third dimension from the end.
        enable_gqa: whether k and v may have fewer heads than q, each for as many neighbouring heads of q.

    Returns:
        (..., L, F), in the dtype of q, or autocast's. A query that sees no key gives zeros.

    Raises:
        TypeError: for a map of logarithms, and for dtypes that are not taken.
        ValueError: for shapes that do not fit.

    Example:
        >>> import torch, softplex as sx
        >>> from softplex.torch import attention
        >>> q = k = torch.tensor([[0.0], [4.0]])
        >>> attention(q, k, torch.tensor([[1.0], [2.0]]), map=sx.sparsemax)
        tensor([[1.5000],
                [2.0000]])

    Source: Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762; sparse maps: Correia, Niculae & Martins
    2019, Adaptively Sparse Transformers, arXiv:1909.00015; tiles: Rabe & Staats 2021, arXiv:2112.05682.
    """
    check(q, k, v, map, mask)
    device = q.device.type
    if (dtype := cast_dtype(device)) is not None:
        q, k, v = (as_autocast(each, dtype) for each in (q, k, v))
    if enable_gqa:
        k, v = (with_heads_of(q, each) for each in (k, v))
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    with uncast(device):
        inputs, batch = as_inputs(q, k, v, mask, sink)
        setting = Setting(map, scale, causal)
        sizes = (*batch, q.shape[-2])
        if math.prod(sizes) * k.shape[-2] <= TILE:
            return attend(inputs, setting)
        return in_tiles(inputs, setting, sizes)


def as_autocast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in the dtype in which autocast takes products; float64 is left alone there."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)


def check(q: Tensor, k: Tensor, v: Tensor, map: Map, mask: Tensor | None) -> None:
    """Refuse what does not fit together."""
    if a_map(map, "attention").formula.kind == "logarithm":
        raise TypeError(f"attention: {map.name} gives logarithms; give a map of weights, such as softplex.softmax")
    if not q.is_floating_point() or k.dtype != q.dtype or v.dtype != q.dtype:
        raise TypeError(f"attention: q, k, v have the dtypes {q.dtype}, {k.dtype}, {v.dtype}; give one floating dtype")
    if min(q.dim(), k.dim(), v.dim()) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"attention: q, k, v have the shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; they must be "
            "(..., L, E), (..., S, E), (..., S, F)"
        )
    if mask is not None and mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(
            f"attention: mask has the dtype {mask.dtype}; give booleans, or numbers to be added to the scores"
        )


def with_heads_of(q: Tensor, shared: Tensor) -> Tensor:
    """Keys or values, each head repeated for the neighbouring heads of q that share it."""
    if min(q.dim(), shared.dim()) < 3 or shared.shape[-3] == 0 or q.shape[-3] % shared.shape[-3]:
        raise ValueError(
            f"attention: enable_gqa with q of shape {tuple(q.shape)} and k or v of shape {tuple(shared.shape)}; the "
            "heads of q, its third dimension from the end, must be a multiple of theirs"
        )
    return shared.repeat_interleave(q.shape[-3] // shared.shape[-3], dim=-3)


def as_inputs(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sink: float | Tensor | None
) -> tuple[Inputs, tuple[int, ...]]:
    """Everything as deep as the scores, and their leading dimensions."""
    try:
        batch = common_shape(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"attention: q, k, v have the shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; all but the "
            "last two dimensions must broadcast (fewer heads of k and v: enable_gqa=True)"
        ) from None
    scores = (*batch, q.shape[-2], k.shape[-2])
    if mask is not None and not fits(mask, scores):
        raise ValueError(
            f"attention: mask has the shape {tuple(mask.shape)}; it must broadcast to the scores' {scores}"
        )
    if isinstance(sink, Tensor) and sink.dim() == 1:
        sink = sink[:, None, None]
    if isinstance(sink, Tensor) and (sink.dim() not in (0, 3) or not fits(sink, scores)):
        raise ValueError(
            f"attention: sink has the shape {tuple(sink.shape)}; it must be a number or of the shape {scores[-3:-2]}, "
            "one number a head"
        )

    def deep(tensor: Tensor) -> Tensor:
        return tensor.reshape((1,) * (len(scores) - tensor.dim()) + tuple(tensor.shape))

    where = added = None
    if mask is not None:
        mask = deep(mask)
        where = mask if mask.dtype == torch.bool else mask != -math.inf
        added = None if mask.dtype == torch.bool else torch.where(where, mask, 0.0)
    sink = deep(sink) if isinstance(sink, Tensor) else sink
    return Inputs(deep(q), deep(k), deep(v), where, added, sink), batch


def common_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """What the shapes broadcast to."""
    return tuple(torch.broadcast_shapes(*shapes))


def fits(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a tensor broadcasts to a shape."""
    sizes = tuple(tensor.shape)
    tail = shape[len(shape) - len(sizes) :]
    return len(sizes) <= len(shape) and all(size in (1, whole) for size, whole in zip(sizes, tail, strict=True))


def in_tiles(inputs: Inputs, setting: Setting, sizes: tuple[int, ...], dim: int = 0) -> Tensor:
    """Attention of queries of these sizes, (..., L), tile after tile; the dimensions before `dim` are split."""
    inner = math.prod(sizes[dim + 1 :]) * inputs.k.shape[-2]
    if dim == len(sizes) or sizes[dim] * inner <= TILE:
        # Transforms of torch.func do not take checkpoints: there every tile's weights are kept.
        if not torch.is_grad_enabled() or transforms_are_active():
            return attend(inputs, setting)
        found: Tensor = checkpoint(attend, inputs, setting, use_reentrant=False, preserve_rng_state=False)
        return found
    step = max(1, TILE // inner)
    parts = split(inputs, step, sizes[dim], dim, is_query=dim == len(sizes) - 1)
    results: list[Tensor] = []
    for part in parts:
        size = min(step, sizes[dim] - len(results) * step)
        results.append(in_tiles(part, setting, (*sizes[:dim], size, *sizes[dim + 1 :]), dim + 1))
    return torch.cat(results, dim)


def split(inputs: Inputs, step: int, size: int, dim: int, *, is_query: bool) -> list[Inputs]:
    """The inputs of every `step` entries along a dimension. That of the queries is none of keys, values and sink."""
    count = -(-size // step)

    def pieces(given: Any, *, is_split: bool) -> list[Any]:
        if not is_split or not isinstance(given, Tensor) or given.shape[dim] == 1:
            return [given] * count
        return list(torch.split(given, step, dim))

    q, where, added = (pieces(each, is_split=True) for each in (inputs.q, inputs.where, inputs.added))
    k, v, sink = (pieces(each, is_split=not is_query) for each in (inputs.k, inputs.v, inputs.sink))
    starts = [inputs.start + step * at * is_query for at in range(count)]
    return [Inputs(*part) for part in zip(q, k, v, where, added, sink, starts, strict=True)]


def attend(inputs: Inputs, setting: Setting) -> Tensor:
    """Attention of all queries at once."""
    q, k, v, where, added, sink, start = inputs
    if setting.causal:
        stop = min(k.shape[-2], start + q.shape[-2])
        k, v = k[..., :stop, :], v[..., :stop, :]
        where, added = (each if each is None or each.shape[-1] == 1 else each[..., :stop] for each in (where, added))
    if where is not None or setting.causal:
        where, q, k, v = visible(q, k, v, where, start if setting.causal else None)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q.to(wide) * setting.scale) @ k.to(wide).mT
    if added is not None:
        scores = scores + added.to(wide)
    shapes = [each.shape for each in (where, sink) if isinstance(each, Tensor)]
    scores = scores.expand(common_shape(scores.shape, *shapes))
    where = None if where is None else where.expand(scores.shape)
    weights: Tensor = setting.map(scores, -1, where=where, sink=sink)
    return (weights @ v.to(wide)).to(q.dtype)


def visible(
    q: Tensor, k: Tensor, v: Tensor, where: Tensor | None, start: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Who sees whom, and q, k, v without what sees nothing or is not seen: 0 times a NaN there would not be 0."""
    sees = where
    if start is not None:
        queries = torch.arange(start, start + q.shape[-2], device=q.device)
        past = queries[:, None] >= torch.arange(k.shape[-2], device=q.device)
        sees = past if where is None else where & past
    assert sees is not None
    if where is not None:
        is_seen = sees.any(dim=-2).unsqueeze(-1)
        q = torch.where(sees.any(dim=-1, keepdim=True), q, 0.0)
        k, v = torch.where(is_seen, k, 0.0), torch.where(is_seen, v, 0.0)
    return sees, q, k, v
