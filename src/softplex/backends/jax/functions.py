"""jax.numpy under the names of the array API standard, in 32 or 64 bit; and its loops. No formula lives here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from softplex.core.arrays import Array, Namespace


class JaxFunctions:
    """jax.numpy, whose 64-bit types are there only where they were asked for."""

    float32, float16, bfloat16 = jnp.float32, jnp.float16, jnp.bfloat16

    def __init__(self, *, has_64: bool) -> None:
        self.int64 = jnp.int64 if has_64 else jnp.int32
        if has_64:
            self.float64 = jnp.float64

    def log1p(self, x: Array) -> Array:
        """log(1 + x); below 0 XLA's in 64 bit is off by up to 128 ULP, Kahan's is not (Goldberg 1991, theorem 4)."""
        if self.int64 == jnp.int32:
            return jnp.log1p(x)
        # The barrier keeps XLA from taking u - 1 for x.
        u = lax.optimization_barrier(1.0 + x)
        is_lost = u == 1.0
        below = jnp.where(is_lost, x, x * jnp.log(u) / jnp.where(is_lost, 1.0, u - 1.0))
        return jnp.where(x < 0.0, below, jnp.log1p(x))

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def detach(x: Array) -> Array:
        """The same numbers without their derivatives."""
        return lax.stop_gradient(x)


class Loops:
    """Rounds as a loop of the compiled program; sums where a slice would cut a sharded axis."""

    def zero_column(self, entries: Array) -> Array:
        """A zero for each row."""
        return jnp.sum(jnp.zeros_like(entries), axis=-1, keepdims=True)

    def repeat(self, step: Callable[..., tuple[Array, ...]], state: tuple[Array, ...], times: int) -> tuple[Array, ...]:
        """One round after the other."""
        found: tuple[Array, ...] = lax.fori_loop(0, times, lambda _, state: tuple(step(*state)), tuple(state))
        return found

    def iterate(
        self, step: Callable[..., tuple[Array, ...]], state: tuple[Array, ...], rounds: int
    ) -> tuple[Array, ...]:
        """Repeat until all rows are done; the first round stands before the loop.

        What rows compute once and keep is so computed outside of the loop, and the state has its shapes.
        """
        state = step(*state)

        def is_open(carried: tuple[Any, ...]) -> Any:
            return (carried[0] < rounds) & ~jnp.all(carried[-1])

        def once(carried: tuple[Any, ...]) -> tuple[Any, ...]:
            return carried[0] + 1, *step(*carried[1:])

        found: tuple[Array, ...] = lax.while_loop(is_open, once, (jnp.int32(1), *state))
        return found[1:]


class PlainNamespace(Loops, Namespace):
    """For what nobody differentiates."""
