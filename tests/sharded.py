"""Run as a program of its own: what XLA makes of every map on four devices. Prints a line for each compiled program.

method map axis-that-is-sharded: collectives, the largest of them in numbers a row, error against one device
"""

import os
import re
import sys

from frameworks import COMPILED_QUICKLY

os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=4 {COMPILED_QUICKLY}"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import softplex as sx

ROWS, CLASSES = 8, 64
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(text):
    """How often each stands in the program, and the most numbers that one of them moves for each row."""
    counts = {name: len(re.findall(rf"\b{name}(?:-start)?\(", text)) for name in COLLECTIVES}
    results = re.findall(rf"= (.*?) (?:{'|'.join(COLLECTIVES)})(?:-start)?\(", text)
    shapes = [shape for result in results for shape in re.findall(r"\[([\d,]*)\]", result)]
    largest = max(
        (int(np.prod([int(size) for size in shape.split(",") if size] or [1])) for shape in shapes), default=0
    )
    return counts, largest / ROWS


def programs(map_, hyper, x, t, y):
    """The functions that are compiled, by name."""
    yield "value", lambda x: map_(x, **hyper)
    yield "gradient", jax.grad(lambda x: (map_(x, **hyper) * t).sum())
    warm = jnp.asarray(0.7)
    yield "gradient with a sink", jax.grad(lambda x: (map_(x, temperature=warm, sink=0.1, **hyper) * t).sum())
    if not map_.name.startswith("log") and map_ is not sx.budget:
        yield "gradient of a loss", jax.grad(lambda x: map_.loss(x, y, **hyper))
        spread = jax.nn.softmax(t)
        yield "gradient of a loss against a distribution", jax.grad(lambda x: map_.loss(x, spread, **hyper))


def main():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    draws = np.random.default_rng(0).normal(size=(2, ROWS, CLASSES)).astype(np.float32)
    x, t = jnp.asarray(draws[0]), jnp.asarray(draws[1])
    y = jnp.arange(ROWS) % CLASSES
    names = sys.argv[1:]
    for map_ in sx.MAPS:
        if names and map_.name not in names:
            continue
        hyper = {"budget": 2.0} if map_ is sx.budget else {}
        for which, spec in (("classes", PartitionSpec(None, "d")), ("rows", PartitionSpec("d", None))):
            sharding = NamedSharding(mesh, spec)
            for name, function in programs(map_, hyper, x, t, y):
                if which == "rows" and name not in ("value", "gradient"):
                    continue
                compiled = jax.jit(function, in_shardings=sharding, out_shardings=sharding).lower(x).compile()
                counts, largest = collectives(compiled.as_text())
                got = compiled(jax.device_put(x, sharding))
                error = float(jnp.abs(np.asarray(got) - np.asarray(function(x))).max())
                seen = " ".join(f"{key}={count}" for key, count in counts.items())
                print(f"{name}|{map_.name}|{which}|{seen}|{largest:g}|{error:.3g}", flush=True)


def explicit_meshes():
    """Where shardings are parts of types, no operation may cut the classes."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(ROWS, CLASSES)).astype(np.float32))
    y = jnp.arange(ROWS)
    for spec in (PartitionSpec(None, "d"), PartitionSpec("d", None)):
        sharding = NamedSharding(mesh, spec)
        placed = jax.device_put(x, sharding), jax.device_put(y, NamedSharding(mesh, PartitionSpec(spec[0])))
        for map_ in (sx.softmax, sx.sparsemax):
            for function in (
                lambda x, y, m=map_: m(x, sink=0.1, temperature=0.7),
                jax.jit(jax.grad(lambda x, y, m=map_: (m(x, sink=0.1) ** 2).sum())),
                jax.jit(jax.grad(lambda x, y, m=map_: m.loss(x, y))),
            ):
                with jax.set_mesh(mesh):
                    found = function(*placed)
                assert found.sharding.is_equivalent_to(sharding, 2)
                np.testing.assert_allclose(np.asarray(found), np.asarray(function(x, y)), atol=1e-6)


main()
if hasattr(jax, "set_mesh"):  # in JAX 0.7 explicit meshes are an experiment, in which broadcast operands have no place
    explicit_meshes()
