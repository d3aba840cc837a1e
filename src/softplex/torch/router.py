"""The router of a mixture of experts: which experts a token goes to, with which weights, and how even that is.

The experts themselves, and how tokens are sent to them, are the caller's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Linear, Module

from softplex.core.map import Map
from softplex.maps import sparsemax
from softplex.torch.activations import a_map
from softplex.torch.precision import uncast


class Routing(NamedTuple):
    """Where tokens go. Statistics are float32 (float64 for float64) and count the tokens that take part."""

    weights: Tensor
    """(..., experts), in the dtype of the tokens: 0 for an expert that a token does not go to."""
    indices: Tensor | None
    """(..., k), int64: the experts by falling weight; None without k."""
    values: Tensor | None
    """(..., k): their weights; None without k."""
    scores: Tensor
    """(..., experts): what the map saw."""
    fraction: Tensor
    """(experts,): the part of the tokens that go to each expert; no gradient."""
    mean_weight: Tensor
    """(experts,): the mean weight that the map gives each expert before any is left out."""
    experts_per_token: Tensor
    """The mean number of experts that a token goes to; no gradient."""
    balance_loss: Tensor
    """experts * sum_i f_i P_i with f the fraction, scaled to sum to 1, and P the mean weight; 1 where either is even.
    It says nothing where each token goes to all experts, as with softmax and no k."""
    z_loss: Tensor
    """The mean of (log sum exp scores)^2, which keeps scores small."""


class Router(Module):
    """Router of a mixture of experts.

        weights = map(W x + b), of all experts, or of k

    Scores, weights and statistics are computed in float32 at least, under autocast too.

    Arguments:
        features: how many numbers a token has.
        experts: how many experts there are.
        k: how many experts a token goes to at most. None: as many as the map gives weight to; sparse maps switch
            experts off, softmax goes to all.
        map: any map of weights, bound ones and blends too.
        before: with k, whether the k highest scores are chosen and the map sees these alone, or (False) the map sees
            all scores and the k largest weights are kept. Of equals the expert that comes first is chosen.
        renormalise: whether the weights that were kept are divided by their sum. With k = 1 they are then 1 and, as
            with before=True, pass the router no gradient; the Switch Transformer has before=False, renormalise=False.
        bias: whether scores have a bias.
        temperature: a positive and finite number.
        device, dtype: of the parameters, which `linear` holds; initialised as torch.nn.Linear.

    Returns:
        forward(x, where=None): a `Routing` of tokens (..., features). `where`, booleans (...), leaves tokens out:
        they weigh 0 everywhere and are not counted.

    Raises:
        TypeError: for a map of logarithms.
        ValueError: where k does not lie between 1 and the number of experts; for shapes that do not fit.

    Example:
        >>> import torch
        >>> from softplex.torch import Router
        >>> routing = Router(8, experts=4, k=2)(torch.ones(5, 8))
        >>> routing.weights.shape, routing.indices.shape, routing.weights.sum(dim=-1)
        (torch.Size([5, 4]), torch.Size([5, 2]), tensor([1., 1., 1., 1., 1.], grad_fn=<SumBackward1>))

    Source: Shazeer et al. 2017, arXiv:1701.06538; the balance loss from Fedus, Zoph & Shazeer 2022, Switch
    Transformers, arXiv:2101.03961; the z-loss from Zoph et al. 2022, ST-MoE, arXiv:2202.08906.
    """

    def __init__(
        self,
        features: int,
        experts: int,
        k: int | None = None,
        map: Map = sparsemax,
        *,
        before: bool = True,
        renormalise: bool = False,
        bias: bool = False,
        temperature: float = 1.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if a_map(map, "Router").formula.kind == "logarithm":
            raise TypeError(f"Router: {map.name} gives logarithms; give a map of weights, such as softplex.sparsemax")
        if k is not None and (isinstance(k, bool) or not hasattr(k, "__index__")):
            raise TypeError(f"Router: k={k!r} is not an integer; give how many experts a token goes to, or None")
        if k is not None and not 1 <= k <= experts:
            raise ValueError(f"Router: k={k} with {experts} experts; it must lie between 1 and {experts}, or be None")
        self.features = features
        self.experts = experts
        self.k = k
        self.map = map
        self.before = before
        self.renormalise = renormalise
        self.temperature = temperature
        self.linear = Linear(features, experts, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor, where: Tensor | None = None) -> Routing:
        """Where the tokens x go."""
        if where is not None and (where.dtype != torch.bool or where.shape != x.shape[:-1]):
            raise ValueError(
                f"Router: where has shape {tuple(where.shape)} and dtype {where.dtype}; it must hold booleans of the "
                f"tokens' shape {tuple(x.shape[:-1])}"
            )
        with uncast(x.device.type):
            takes_part = None if where is None else where.unsqueeze(-1)
            scores = self._scores(x, takes_part)
            all_weights = self._weigh(scores, takes_part)
            weights, indices, values = self._chosen(scores, all_weights, takes_part)
            statistics = evenness(scores, all_weights, weights.detach(), where)
            dtype = x.dtype if x.is_floating_point() else scores.dtype
            if values is not None:
                values = values.to(dtype)
            return Routing(weights.to(dtype), indices, values, scores, *statistics)

    def _scores(self, x: Tensor, takes_part: Tensor | None) -> Tensor:
        """The experts' scores in float32 at least; tokens left out may hold anything, NaN included."""
        wide = torch.promote_types(x.dtype, torch.float32)
        x = x.to(wide)
        if takes_part is not None:
            x = torch.where(takes_part, x, 0.0)
        weight, bias = self.linear.weight.to(wide), self.linear.bias
        return torch.nn.functional.linear(x, weight, None if bias is None else bias.to(wide))

    def _weigh(self, scores: Tensor, where: Tensor | None) -> Tensor:
        weights: Tensor = self.map(scores, -1, temperature=self.temperature, where=where)
        return weights

    def _chosen(
        self, scores: Tensor, weights: Tensor, takes_part: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The weights of those experts that were chosen, and these by falling weight."""
        if self.k is None:
            return self._renormalised(weights), None, None
        chosen = first_largest(scores if self.before else weights, self.k)
        # Not scattered into zeros, which torch 2.13's compiled steps read before they are written.
        is_chosen = (torch.arange(self.experts, device=scores.device) == chosen[..., None]).any(-2)
        if self.before:
            weights = self._weigh(scores, is_chosen if takes_part is None else is_chosen & takes_part)
        else:
            weights = torch.where(is_chosen, weights, 0.0)
        weights = self._renormalised(weights)
        values = weights.gather(-1, chosen)
        order = torch.sort(values.detach(), dim=-1, descending=True, stable=True).indices
        return weights, chosen.gather(-1, order), values.gather(-1, order)

    def _renormalised(self, weights: Tensor) -> Tensor:
        if not self.renormalise:
            return weights
        total = weights.sum(dim=-1, keepdim=True)
        return weights / torch.where(total == 0.0, 1.0, total)

    def extra_repr(self) -> str:
        """What was given, but for the linear layer."""
        chosen = "" if self.k is None else f", k={self.k}, before={self.before}"
        return f"map={self.map.name}{chosen}, renormalise={self.renormalise}, temperature={self.temperature}"


def first_largest(values: Tensor, k: int) -> Tensor:
    """The places of the k largest; of equals those that come first, which topk leaves open."""
    return torch.sort(values.detach(), dim=-1, descending=True, stable=True).indices[..., :k]


def evenness(
    scores: Tensor, all_weights: Tensor, weights: Tensor, where: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The statistics of a routing, in its order."""
    experts = scores.shape[-1]
    scores, all_weights, weights = (each.reshape(-1, experts) for each in (scores, all_weights, weights))
    shares = torch.ones_like(scores[:, :1]) if where is None else where.reshape(-1, 1).to(scores.dtype)
    shares = shares / shares.sum().clamp(min=1.0)
    fraction = ((weights != 0.0).to(shares.dtype) * shares).sum(dim=0)
    mean_weight = (all_weights * shares).sum(dim=0)
    per_token = fraction.sum()
    even = fraction / torch.where(per_token == 0.0, 1.0, per_token)
    balance = experts * (even * mean_weight).sum()
    z = (torch.logsumexp(scores, dim=-1).square() * shares[:, 0]).sum()
    return fraction, mean_weight, per_token, balance, z
