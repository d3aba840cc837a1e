"""Facts about softplex and its peers, measured side by side in one run: errors against exact results, edge cases, and
which derivatives of PyTorch's tensors there are.

    python bench/compare.py            measures every peer that is installed; writes bench/results/compare-<date>.json
    python bench/compare.py --demo     runs the demonstration; writes bench/results/demo-<date>.json
    python bench/compare.py --readme   rewrites the tables in README.md from the newest of those files, of those that
                                       `softplex bench --json bench/results/bench-<date>-<processor>-<set>.json`
                                       writes and of those of bench/errors.py

Nothing here is timed. A peer is called as its users call it; what it lacks stays empty. Exact results come from mpmath
and from fractions, not from any of the libraries. It needs mpmath, and takes those of SciPy, torch, JAX, Keras and
entmax that are installed; softplex is that of this checkout.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
SEED = 20240229
ROWS, COLUMNS = 200, 64

# Keras asks for its backend before it is imported; its functions are its own or torch's then.
os.environ.setdefault("KERAS_BACKEND", "torch")
# JAX rounds float64 to float32 unless it is told not to.
os.environ.setdefault("JAX_ENABLE_X64", "1")
mpmath.mp.dps = 60
sys.path.insert(0, str(ROOT / "src"))


# ---- peers: what a library offers, each function from NumPy arrays to NumPy arrays, along the last axis unless told


@dataclass
class Peer:
    """A library's functions by the names that the facts below ask for."""

    name: str
    package: str
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    on_tensors: dict[str, Callable[..., Any]] = field(default_factory=dict)
    """From PyTorch's tensors to tensors, differentiable, along the last axis."""


def softplex_peer() -> Peer:
    import softplex as sx

    def masked_gradient(x: Any, mask: Any, g: Any) -> Any:
        return sx.softmax.vjp(x, g, where=mask)

    return Peer(
        "softplex",
        "softplex",
        {
            "softmax": sx.softmax,
            "log_softmax": sx.log_softmax,
            "sparsemax": sx.sparsemax,
            "entmax15": sx.entmax15,
            "entmax": lambda x, alpha: sx.entmax(x, alpha=alpha),
            "cross_entropy_gradient": sx.softmax.residual,
            "masked_softmax": lambda x, mask: sx.softmax(x, where=mask),
            "masked_gradient": masked_gradient,
        },
        {
            "softmax": sx.softmax,
            "sparsemax": sx.sparsemax,
            "entmax15": sx.entmax15,
            "entmax": lambda x, alpha: sx.entmax(x, alpha=alpha),
            "cross_entropy": sx.cross_entropy,
            "sparsemax_loss": lambda x, y: sx.sparsemax_loss(x, y, ignore_index=-100),
        },
    )


def scipy_peer() -> Peer:
    from scipy import special

    return Peer(
        "SciPy",
        "scipy",
        {
            "softmax": lambda x, axis=-1: special.softmax(x, axis=axis),
            "log_softmax": lambda x, axis=-1: special.log_softmax(x, axis=axis),
        },
    )


def torch_peer() -> Peer:
    import torch

    def on_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, axis=-1: function(torch.from_numpy(np.array(x)), dim=axis).numpy()

    def cross_entropy_gradient(x: Any, y: Any) -> Any:
        scores = torch.from_numpy(np.array(x)).requires_grad_()
        torch.nn.functional.cross_entropy(scores, torch.from_numpy(y), reduction="sum").backward()
        return scores.grad.numpy()

    def masked_softmax(x: Any, mask: Any) -> Any:
        return torch.masked.softmax(torch.from_numpy(x), -1, mask=torch.from_numpy(mask)).numpy()[mask]

    def masked_gradient(x: Any, mask: Any, g: Any) -> Any:
        scores = torch.from_numpy(x.copy()).requires_grad_()
        weights = torch.masked.softmax(scores, -1, mask=torch.from_numpy(mask))
        (weights[torch.from_numpy(mask)] * torch.from_numpy(g[mask])).sum().backward()
        return scores.grad.numpy()

    return Peer(
        "PyTorch",
        "torch",
        {
            "softmax": on_tensors(torch.softmax),
            "log_softmax": on_tensors(torch.log_softmax),
            "cross_entropy_gradient": cross_entropy_gradient,
            "masked_softmax": masked_softmax,
            "masked_gradient": masked_gradient,
        },
        {
            "softmax": lambda x: torch.softmax(x, -1),
            "cross_entropy": torch.nn.functional.cross_entropy,
        },
    )


def jax_peer() -> Peer:
    import jax

    def cross_entropy_gradient(x: Any, y: Any) -> Any:
        def loss(scores: Any) -> Any:
            return -sum(jax.nn.log_softmax(scores)[row, label] for row, label in enumerate(y))

        return np.asarray(jax.grad(loss)(x))

    def masked_softmax(x: Any, mask: Any) -> Any:
        return np.asarray(jax.nn.softmax(x, where=mask))

    def masked_gradient(x: Any, mask: Any, g: Any) -> Any:
        return np.asarray(jax.grad(lambda x: (jax.nn.softmax(x, where=mask) * g).sum())(x))

    return Peer(
        "JAX",
        "jax",
        {
            "softmax": lambda x, axis=-1: np.asarray(jax.nn.softmax(x, axis=axis)),
            "log_softmax": lambda x, axis=-1: np.asarray(jax.nn.log_softmax(x, axis=axis)),
            "cross_entropy_gradient": cross_entropy_gradient,
            "masked_softmax": masked_softmax,
            "masked_gradient": masked_gradient,
        },
    )


def keras_peer() -> Peer:
    import keras

    def on_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
        def on_arrays(x: Any, axis: int = -1) -> Any:
            tensor = keras.ops.convert_to_tensor(x, dtype=str(x.dtype))
            return keras.ops.convert_to_numpy(function(tensor, axis=axis))

        return on_arrays

    def masked_softmax(x: Any, mask: Any) -> Any:
        return keras.ops.convert_to_numpy(keras.layers.Softmax(dtype=str(x.dtype))(x, mask=mask))[mask]

    sparse_cross_entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-100, dtype="float64"
    )
    return Peer(
        "Keras",
        "keras",
        {
            "softmax": on_tensors(keras.ops.softmax),
            "log_softmax": on_tensors(keras.ops.log_softmax),
            "sparsemax": on_tensors(keras.ops.sparsemax),
            "masked_softmax": masked_softmax,
        },
        {
            "softmax": keras.ops.softmax,
            "sparsemax": keras.ops.sparsemax,
            "cross_entropy": lambda x, y: sparse_cross_entropy(y, x),
        },
    )


def entmax_peer() -> Peer:
    import entmax
    import torch

    def on_tensors(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return lambda x, axis=-1: function(torch.from_numpy(np.array(x)), dim=axis, **options).numpy()

    return Peer(
        "entmax",
        "entmax",
        {
            "sparsemax": on_tensors(entmax.sparsemax),
            "entmax15": on_tensors(entmax.entmax15),
            "entmax": lambda x, alpha: on_tensors(entmax.entmax_bisect, alpha=alpha)(x),
        },
        {
            "sparsemax": entmax.sparsemax,
            "entmax15": entmax.entmax15,
            "entmax": entmax.entmax_bisect,
            "sparsemax_loss": entmax.SparsemaxLoss(ignore_index=-100),
        },
    )


PEERS = (softplex_peer, scipy_peer, torch_peer, jax_peer, keras_peer, entmax_peer)


def installed_peers() -> list[Peer]:
    found = []
    for make in PEERS:
        try:
            found.append(make())
        except ImportError as error:
            print(f"left out: {make.__name__.removesuffix('_peer')} ({error})")
    return found


# ---- exact results, one row at a time


def exact_softmax(row: Any) -> list[Any]:
    powers = [mpmath.exp(mpmath.mpf(float(x))) for x in row]
    norm = mpmath.fsum(powers)
    return [power / norm for power in powers]


def exact_sparsemax(row: Any) -> list[Any]:
    ordered = sorted((Fraction(float(x)) for x in row), reverse=True)
    running, threshold = Fraction(0), Fraction(0)
    for count, score in enumerate(ordered, start=1):
        running += score
        if 1 + count * score > running:
            threshold = (running - 1) / count
    weights = [max(Fraction(float(x)) - threshold, Fraction(0)) for x in row]
    return [mpmath.mpf(p.numerator) / p.denominator for p in weights]


def exact_entmax(row: Any, alpha: float) -> list[Any]:
    """Bisection on tau in p = ((alpha - 1) x - tau)^(1 / (alpha - 1)), to many more digits than are looked at."""
    step = mpmath.mpf(alpha) - 1
    scores = [step * mpmath.mpf(float(x)) for x in row]

    def weights(tau: Any) -> list[Any]:
        return [max(score - tau, mpmath.mpf(0)) ** (1 / step) for score in scores]

    low, high = max(scores) - 1, max(scores)
    for _ in range(170):
        middle = (low + high) / 2
        low, high = (middle, high) if mpmath.fsum(weights(middle)) > 1 else (low, middle)
    return weights(low)


# ---- errors


def ulp(value: Any, dtype: Any) -> float:
    """The spacing of a dtype at a value."""
    return float(np.spacing(np.abs(np.asarray(float(value), dtype=dtype))))


def error(found: Any, exact: Any) -> float:
    return float(abs(mpmath.mpf(float(found)) - exact))


def worst_of_each(found: Any, exact: list[list[Any]], dtype: Any) -> float:
    """The largest error in ULP of the result itself, over results that are normal numbers."""
    least = float(np.finfo(dtype).smallest_normal)
    errors = [
        error(p, q) / ulp(q, dtype)
        for row, exact_row in zip(found, exact, strict=True)
        for p, q in zip(row, exact_row, strict=True)
        if abs(q) >= least
    ]
    return max(errors)


def worst_of_largest(found: Any, exact: list[list[Any]], dtype: Any) -> float:
    """The largest error in ULP of the largest weight of the row."""
    return max(
        error(p, q) / ulp(max(exact_row), dtype)
        for row, exact_row in zip(found, exact, strict=True)
        for p, q in zip(row, exact_row, strict=True)
    )


# ---- facts: a question, and how a peer's functions answer it


@dataclass
class Fact:
    """A question, what its answer is counted in, the functions that it needs, and how it is answered."""

    question: str
    unit: str
    needs: tuple[str, ...]
    answer: Callable[..., Any]
    is_on_tensors: bool = False


def spread_scores(dtype: Any) -> Any:
    return np.random.default_rng(SEED).uniform(-80.0, 80.0, (ROWS, COLUMNS)).astype(dtype)


def close_scores(dtype: Any) -> Any:
    return np.random.default_rng(SEED).normal(0.0, 1.0, (ROWS, COLUMNS)).astype(dtype)


def log_of_confident(dtype: Any) -> Callable[..., Any]:
    def answer(log_softmax: Callable[..., Any]) -> Any:
        exact = -mpmath.log1p(mpmath.exp(-40))
        return error(log_softmax(np.array([0.0, -40.0], dtype=dtype))[0], exact) / ulp(exact, dtype)

    return answer


def softmax_of_spread(dtype: Any) -> Callable[..., Any]:
    def answer(softmax: Callable[..., Any]) -> Any:
        scores = spread_scores(dtype)
        return worst_of_each(softmax(scores), [exact_softmax(row) for row in scores], dtype)

    return answer


def gradient_of_confident(cross_entropy_gradient: Callable[..., Any]) -> Any:
    scores = np.array([[20.0, 0.0]], dtype=np.float32)
    exact = -1 / (1 + mpmath.exp(20))
    found = cross_entropy_gradient(scores, np.array([0]))[0, 0]
    return error(found, exact) / ulp(exact, np.float32)


def sparsemax_of_four(sparsemax: Callable[..., Any]) -> Any:
    return shown_row(sparsemax(np.array([[0.1, 0.2, 0.3, 0.2]]))[0])


def sparse_of_many(exact: Callable[..., list[Any]]) -> Callable[..., Any]:
    def answer(function: Callable[..., Any]) -> Any:
        scores = close_scores(np.float32)
        return worst_of_largest(function(scores), [exact(row) for row in scores], np.float32)

    return answer


def entmax_near_one(entmax: Callable[..., Any]) -> Any:
    alpha, scores = 1.0 + 1e-6, close_scores(np.float32)[:20]
    return worst_of_largest(entmax(scores, alpha), [exact_entmax(row, alpha) for row in scores], np.float32)


def entmax_at_one(entmax: Callable[..., Any]) -> Any:
    scores = close_scores(np.float32)[:20]
    return worst_of_largest(entmax(scores, 1.0), [exact_softmax(row) for row in scores], np.float32)


def nothing_to_weigh(function: Callable[..., Any]) -> Any:
    return shown_row(function(np.array([[-np.inf, -np.inf]]))[0])


def nan_under_mask(masked_softmax: Callable[..., Any]) -> Any:
    return finite_or_not(masked_softmax(*MASKED))


def gradient_with_nan_under_mask(masked_gradient: Callable[..., Any]) -> Any:
    return finite_or_not(masked_gradient(*MASKED, np.array([[1.0, 0.0, 0.0]])))


MASKED = np.array([[1.0, 2.0, np.nan]]), np.array([[True, True, False]])


def finite_or_not(array: Any) -> str:
    return "finite" if np.isfinite(array).all() else "NaN"


def same_bits(softmax: Callable[..., Any]) -> Any:
    scores = spread_scores(np.float32)[:, :61]
    whole = softmax(scores)
    alone = np.concatenate([softmax(scores[i : i + 1].copy()) for i in range(len(scores))])
    across = softmax(np.ascontiguousarray(scores.T), axis=0).T
    return bool(np.array_equal(whole, alone) and np.array_equal(whole, across))


# ---- facts about tensors, all in float64


def tensor_of(*shape: int, seed: int = SEED) -> Any:
    import torch

    return torch.from_numpy(np.random.default_rng(seed).normal(0.0, 1.0, shape))


def differentiates_twice(function: Callable[..., Any]) -> bool:
    import torch

    x = tensor_of(3, 6).requires_grad_()
    return bool(torch.autograd.gradgradcheck(function, (x,), raise_exception=False))


def tangents(function: Callable[..., Any]) -> Any:
    """Forward mode; the scores and the tangent are looked at as they come, so that it compiles too."""
    import torch

    return lambda x, t: torch.func.jvp(function, (x,), (t,))[1]


def is_product(function: Callable[..., Any], found: Callable[..., Any]) -> bool:
    """Whether what was found is the Jacobian times the tangent; the Jacobian by central differences of the values."""
    import torch

    x, t, step = tensor_of(6), tensor_of(6, seed=SEED + 1), 2.0**-20
    unit = step * torch.eye(6, dtype=x.dtype)
    jacobian = torch.stack([(function(x + e) - function(x - e)) / (2 * step) for e in unit], dim=1)
    return bool(torch.allclose(found(x, t), jacobian @ t, rtol=0.0, atol=1e-8))


def has_forward_mode(function: Callable[..., Any]) -> bool:
    return is_product(function, tangents(function))


def has_forward_mode_when_compiled(function: Callable[..., Any]) -> bool:
    import torch

    torch.compiler.reset()
    return is_product(function, torch.compile(tangents(function), fullgraph=True))


def has_batches(function: Callable[..., Any]) -> bool:
    import torch

    x = tensor_of(4, 6)
    return bool(torch.allclose(torch.vmap(function)(x), torch.stack([function(row) for row in x])))


def gradient_of_nothing(function: Callable[..., Any]) -> Any:
    import torch

    x = torch.full((1, 2), -torch.inf, dtype=torch.float64, requires_grad=True)
    function(x)[0, 0].backward()
    return shown_row(x.grad[0])


def gradient_for_alpha(entmax: Callable[..., Any]) -> Any:
    """d p_i / d alpha at 1 is p_i (sum_j p_j log^2 p_j - log^2 p_i) / 2."""
    import torch

    x, alpha = tensor_of(6), torch.ones((), dtype=torch.float64, requires_grad=True)
    entmax(x, alpha)[0].backward()
    p = exact_softmax(x.tolist())
    mean = mpmath.fsum(q * mpmath.log(q) ** 2 for q in p)
    exact = p[0] * (mean - mpmath.log(p[0]) ** 2) / 2
    return error(alpha.grad, exact) / ulp(exact, np.float64)


def loss_of_ignored(cross_entropy: Callable[..., Any]) -> str:
    import torch

    return shown_row([cross_entropy(tensor_of(2, 3), torch.tensor([-100, -100]))])[1:-1]


def leaves_ignored_out(sparsemax_loss: Callable[..., Any]) -> bool:
    import torch

    x, y = tensor_of(3, 4), torch.tensor([0, -100, 2])
    kept = [0, 2]
    return bool(torch.allclose(sparsemax_loss(x, y), sparsemax_loss(x[kept], y[kept])))


def shown_row(row: Any) -> str:
    return "[" + ", ".join(f"{float(p):.3g}" for p in row) + "]"


FACTS = (
    Fact("first of log_softmax([0, -40]), float64", "ULP", ("log_softmax",), log_of_confident(np.float64)),
    Fact("the same, float32", "ULP", ("log_softmax",), log_of_confident(np.float32)),
    Fact("softmax of scores over ±80, float32", "ULP", ("softmax",), softmax_of_spread(np.float32)),
    Fact("the same, float64", "ULP", ("softmax",), softmax_of_spread(np.float64)),
    Fact(
        "gradient of cross-entropy at scores [20, 0], class 0, float32",
        "ULP",
        ("cross_entropy_gradient",),
        gradient_of_confident,
    ),
    Fact("sparsemax([0.1, 0.2, 0.3, 0.2]), exactly [0.15, 0.25, 0.35, 0.25]", "", ("sparsemax",), sparsemax_of_four),
    Fact("sparsemax of normal scores, float32", "ULP of max", ("sparsemax",), sparse_of_many(exact_sparsemax)),
    Fact(
        "entmax15 of normal scores, float32",
        "ULP of max",
        ("entmax15",),
        sparse_of_many(lambda row: exact_entmax(row, 1.5)),
    ),
    Fact("entmax(alpha=1), which is softmax, float32", "ULP of max", ("entmax",), entmax_at_one),
    Fact("entmax(alpha=1.000001), float32", "ULP of max", ("entmax",), entmax_near_one),
    Fact("softmax of [-inf, -inf]", "", ("softmax",), nothing_to_weigh),
    Fact("sparsemax of [-inf, -inf]", "", ("sparsemax",), nothing_to_weigh),
    Fact("softmax with a NaN under the mask: the other weights", "", ("masked_softmax",), nan_under_mask),
    Fact("the same: the gradient", "", ("masked_gradient",), gradient_with_nan_under_mask),
    Fact("softmax: a row has the same bits alone, in a batch and along axis 0", "", ("softmax",), same_bits),
    Fact("on tensors: softmax in forward mode (jvp)", "", ("softmax",), has_forward_mode, True),
    Fact("on tensors: entmax15 in forward mode", "", ("entmax15",), has_forward_mode, True),
    Fact("the same, within torch.compile(fullgraph=True)", "", ("entmax15",), has_forward_mode_when_compiled, True),
    Fact("on tensors: entmax15 under torch.vmap", "", ("entmax15",), has_batches, True),
    Fact("on tensors: second derivatives of entmax15 (gradgradcheck)", "", ("entmax15",), differentiates_twice, True),
    Fact("on tensors: gradient of sparsemax at [-inf, -inf]", "", ("sparsemax",), gradient_of_nothing, True),
    Fact(
        "on tensors: gradient of entmax for alpha, at alpha = 1, float64", "ULP", ("entmax",), gradient_for_alpha, True
    ),
    Fact("on tensors: mean cross-entropy, every row ignored", "", ("cross_entropy",), loss_of_ignored, True),
    Fact("on tensors: sparsemax loss with ignore_index=-100", "", ("sparsemax_loss",), leaves_ignored_out, True),
)


def answered(fact: Fact, peer: Peer) -> Any:
    """The answer, None where the peer lacks a function, the name of the exception where it raises one."""
    offered = peer.on_tensors if fact.is_on_tensors else peer.functions
    functions = [offered.get(name) for name in fact.needs]
    if None in functions or (fact.is_on_tensors and importlib.util.find_spec("torch") is None):
        return None
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            value = fact.answer(*functions)
    except Exception as failure:  # noqa: BLE001 - what a peer raises is the finding
        return f"raises {type(failure).__name__}"
    if isinstance(value, float):
        # JSON knows no NaN; an error that is not a number means that the result was none.
        return float(f"{value:.4g}") if np.isfinite(value) else "NaN"
    return value


# ---- the file and the table


def measure() -> dict[str, Any]:
    peers = installed_peers()
    facts = []
    for fact in FACTS:
        print(fact.question)
        values = {peer.name: answered(fact, peer) for peer in peers}
        facts.append({"question": fact.question, "unit": fact.unit, "values": values})
    return {
        "date": today(),
        "machine": {"cpu": cpu_model(), "system": platform.system(), "architecture": platform.machine()},
        "versions": {peer.name: version_of(peer) for peer in peers}
        | {
            "NumPy": np.__version__,
            "Python": platform.python_version(),
            "mpmath": mpmath.__version__,
        },
        "settings": {
            "seed": SEED,
            "rows": ROWS,
            "columns": COLUMNS,
            "keras backend": os.environ["KERAS_BACKEND"],
            "jax x64": os.environ["JAX_ENABLE_X64"],
        },
        "facts": facts,
    }


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def version_of(peer: Peer) -> str:
    try:
        return metadata.version(peer.package)
    except metadata.PackageNotFoundError:
        return str(importlib.import_module(peer.package).__version__)


def cpu_model() -> str:
    from softplex.bench import machine

    return machine.cpu_model()


def write_results(name: str, found: dict[str, Any]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}-{found['date']}.json"
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def table(found: dict[str, Any], source: str) -> str:
    """The facts as Markdown, a peer a column."""
    peers = list(found["facts"][0]["values"])
    lines = ["| | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for fact in found["facts"]:
        unit = f" ({fact['unit']})" if fact["unit"] else ""
        cells = [shown(value) for value in fact["values"].values()]
        lines.append(f"| {fact['question']}{unit} | " + " | ".join(cells) + " |")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    keras = f"Keras on its {found['settings']['keras backend']} backend, JAX with 64-bit types on."
    lines += [
        "",
        f"Measured on {found['date']} on {found['machine']['cpu']} with {versions}. {keras} Kept in `{source}`.",
    ]
    return "\n".join(lines)


def shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return shown_number(value)
    return str(value)


def shown_number(value: float) -> str:
    if value >= 1e4:
        digits, _, exponent = f"{value:.0e}".partition("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def run_demo() -> dict[str, Any]:
    """The demonstration's table, with what it was taken on."""
    from rich.console import Console

    import softplex
    from softplex import demo

    with tempfile.TemporaryDirectory() as folder:
        demo.run(Path(folder), Console())
        rows = json.loads((Path(folder) / "demo.json").read_text(encoding="utf-8"))
    return {
        "date": today(),
        "machine": {"cpu": cpu_model(), "system": platform.system(), "architecture": platform.machine()},
        "versions": {
            "softplex": softplex.__version__,
            "NumPy": np.__version__,
            "Python": platform.python_version(),
        },
        "rows": rows,
    }


def demo_table(found: dict[str, Any], source: str) -> str:
    """The demonstration's table as Markdown."""
    from softplex.demo import shown_results

    headings, *rows = shown_results(found["rows"])
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines += ["", f"Taken on {found['date']} on {found['machine']['cpu']} with {versions}. Kept in `{source}`."]
    return "\n".join(lines)


def rewrite_readme() -> Path:
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    for name, made in {"compare": table, "demo": demo_table, "errors": errors_table}.items():
        for source, found in list(results_of(name).items())[-1:]:
            text = with_block(text, name, made(found, source))
    if timed := full_runs():
        text = with_block(text, "speed", speed_table(timed))
    path.write_text(text, encoding="utf-8")
    return path


def results_of(name: str) -> dict[str, Any]:
    """What the files of that name hold, by their paths, the newest last."""
    paths = sorted(RESULTS.glob(f"{name}-*.json"))
    return {path.relative_to(ROOT).as_posix(): json.loads(path.read_text(encoding="utf-8")) for path in paths}


def errors_table(found: dict[str, Any], source: str) -> str:
    """The measured errors as Markdown; how they are shown is said where they are measured."""
    sys.path.insert(0, str(ROOT / "bench"))
    return importlib.import_module("errors").table(found, source)


def full_runs() -> dict[str, Any]:
    """The newest run of `softplex bench` on each processor and instruction set, without quick ones, by their paths."""
    newest = {}
    for source, found in results_of("bench").items():
        if not found["settings"]["quick"]:
            newest[heading_of(found)] = source, found
    return dict(newest.values())


def heading_of(found: dict[str, Any]) -> str:
    """What a run was taken on, in few words: AMD EPYC, x86-64-v4."""
    names = re.sub(r"\([^)]*\)|Processor", "", found["machine"]["cpu"]).split()
    return f"{' '.join(names)}, {found['machine']['instruction set']}"


def speed_table(runs: dict[str, Any]) -> str:
    """What is promised of speed and what was measured as Markdown, a processor and an instruction set a column."""
    from softplex.bench import report

    keys = list(dict.fromkeys(key_of(goal) for found in runs.values() for goal in found["goals"]))
    goals = [{key_of(goal): goal for goal in found["goals"]} for found in runs.values()]
    headings = ["", "against", *map(heading_of, runs.values()), "promised"]
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for key in keys:
        same = [each.get(key) for each in goals]
        known = [goal for goal in same if goal]
        targets = dict.fromkeys(report.promised(goal) for goal in known)
        cells = [known[0]["what"], report.peer(known[0]), *map(speed_cell, same), " / ".join(targets)]
        lines.append("| " + " | ".join(cells) + " |")
    taken = [f"{report.taken_on(found)} Kept in `{source}`." for source, found in runs.items()]
    return "\n".join([*lines, "", *taken])


def key_of(goal: dict[str, Any]) -> tuple[str, ...]:
    return goal["case"], goal["what"], goal["peer"], goal["statistic"]


def speed_cell(goal: dict[str, Any] | None) -> str:
    """A figure, in bold where it is less than promised; the worst shape's behind a mean."""
    from softplex.bench import report

    if goal is None or goal["figure"] is None:
        return "–"
    figure = report.figure(goal, goal["figure"])
    marked = f"**{figure}**" if goal["reached"] is False else figure
    has_worst = goal["statistic"] == "mean" and goal["worst"]["value"] < goal["figure"]
    return f"{marked} ({report.figure(goal, goal['worst']['value'])})" if has_worst else marked


def with_block(text: str, name: str, made: str) -> str:
    """The text with what stands between the marks of that name replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"README.md has no lines {begin} and {end} to write the table between")
    return f"{before}{begin}\n{made}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="run the demonstration and keep its table")
    parser.add_argument("--readme", action="store_true", help="rewrite the README's tables from the newest results")
    given = parser.parse_args()
    if given.readme:
        print(rewrite_readme())
        return
    if given.demo:
        print(write_results("demo", run_demo()))
        return
    found = measure()
    path = write_results("compare", found)
    print(table(found, path.relative_to(ROOT).as_posix()))


if __name__ == "__main__":
    main()
