"""Check and time the kernels on a GPU, beside what others offer: one script, one file of results, under ten minutes.

    timeout 580 python bench/gpu.py                          # writes bench/results/gpu-<date>.json as it goes
    python bench/gpu.py --draw bench/results/gpu-<date>.json # the picture of such a file
    python bench/gpu.py --plan                               # what would be done, without a GPU

Nothing is built: kernels compile as they are called. The order is that of importance, and every figure is in the file
as soon as it is known, so that a run cut short has told the most. Peers that cannot be imported are left out. A
share is the bytes that must move (each input read once, each output written once) over the time, by the bandwidth of a
device copy measured in the same run.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

RESULTS = Path(__file__).parent / "results"
WIDTHS = (1024, 4096, 16_384, 32_768, 65_536, 131_072, 262_144)
BETWEEN = (2048, 8192)
SHORT = (64, 256)
BYTES = 1 << 28
"""Of an input: far more than any cache holds."""
SMALL_BYTES = 1 << 22
DTYPES = ("bfloat16", "float32")
ITEM = {"bfloat16": 2, "float16": 2, "float32": 4}
SCORES = ("normal", "flat", "peaked")
COMPILED_WIDTHS = (4096, 32_768, 262_144)
"""Where torch.compile is timed: it takes seconds a shape."""


# -- what is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One thing to compute; `streams` is how often the bytes of x must move."""

    name: str
    map: str
    way: str
    streams: int


FORWARD = {name: Task(f"{name} forward", name, "forward", 2) for name in ("softmax", "log_softmax", "softmin")}
FORWARD |= {name: Task(f"{name} forward", name, "forward", 2) for name in ("sparsemax", "entmax15", "entmax(1.3)")}
BACKWARD = {name: Task(f"{name} backward", name, "backward", 3) for name in ("softmax", "sparsemax", "entmax15")}
LOSS = Task("cross_entropy forward + backward", "cross_entropy", "loss", 2)


@dataclass(frozen=True)
class Case:
    """A task on rows of one width, dtype and kind of scores."""

    task: Task
    dtype: str
    n: int
    scores: str = "normal"
    with_graph: bool = False

    @property
    def rows(self) -> int:
        """As many as fill the bytes."""
        size = SMALL_BYTES if self.with_graph else BYTES
        return max(1, size // (self.n * ITEM[self.dtype]))

    @property
    def bytes(self) -> int:
        """What must move."""
        return self.task.streams * self.rows * self.n * ITEM[self.dtype]


def plan() -> Iterator[Case]:
    """All cases, the most important first."""
    for dtype in DTYPES:
        for task in (FORWARD["softmax"], FORWARD["sparsemax"]):
            for n in WIDTHS:
                yield Case(task, dtype, n)
    for dtype in DTYPES:
        for task in (FORWARD["entmax15"], LOSS, BACKWARD["softmax"], BACKWARD["sparsemax"]):
            for n in (4096, 32_768, 262_144):
                yield Case(task, dtype, n)
    for n in SHORT:
        for task in (FORWARD["softmax"], FORWARD["sparsemax"]):
            yield Case(task, "bfloat16", n, with_graph=True)
    for scores in SCORES[1:]:
        for task in (FORWARD["sparsemax"], FORWARD["entmax15"]):
            for n in (4096, 32_768, 262_144):
                yield Case(task, "float32", n, scores)
    for dtype in DTYPES:
        yield Case(FORWARD["entmax(1.3)"], dtype, 4096)
    for dtype in DTYPES:
        for task in (FORWARD["log_softmax"], FORWARD["softmin"], FORWARD["entmax15"], BACKWARD["entmax15"], LOSS):
            for n in WIDTHS:
                yield Case(task, dtype, n)
    for dtype in DTYPES:
        for task in (*FORWARD.values(), *BACKWARD.values(), LOSS):
            for n in BETWEEN:
                yield Case(task, dtype, n)


def distinct(cases: Iterator[Case]) -> list[Case]:
    """Each once, where it stands first."""
    return list(dict.fromkeys(cases))


# -- the file --------------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """What is known, and the file that holds it."""

    path: Path | None
    found: dict[str, Any] = field(default_factory=dict)
    deadline: float = float("inf")

    def note(self, **facts: Any) -> None:
        """Set facts of the run."""
        self.found.update(facts)
        self.save()

    def add(self, kind: str, **row: Any) -> None:
        """Append a row to a list, and print it."""
        self.found.setdefault(kind, []).append(row)
        print(kind, " ".join(f"{key}={shown(value)}" for key, value in row.items()), flush=True)
        self.save()

    def save(self) -> None:
        """Write the file anew, so that it is whole at any time."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
            part.replace(self.path)

    def is_late(self, seconds: float = 0.0) -> bool:
        """Whether less than that is left."""
        return time.monotonic() + seconds > self.deadline


def shown(value: Any) -> str:
    """A number as it is read."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# -- the contenders --------------------------------------------------------------------------------------------------

Make = Callable[[Case, torch.Tensor], Callable[[], Any]]


def imported(name: str) -> Any:
    """A module or an attribute of one, or None."""
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except Exception:  # noqa: BLE001 - a peer may fail to load for any reason of its own
        return None


def function_of(case: Case, contender: str) -> Callable[..., Any] | None:
    """What a contender offers for the map of a case: scores in, weights out; with classes for a loss."""
    import softplex as sx

    name = case.task.map
    known: dict[tuple[str, str], Any] = {}
    for each in ("softmax", "log_softmax", "softmin", "sparsemax", "entmax15"):
        known["softplex", each] = getattr(sx, each)
    known["softplex", "entmax(1.3)"] = sx.entmax.bind(alpha=1.3)
    known["softplex", "cross_entropy"] = sx.cross_entropy
    for each in ("softmax", "log_softmax", "softmin"):
        plain = getattr(torch, each, torch.nn.functional.softmin)
        known["torch", each] = lambda x, plain=plain: plain(x, dim=-1)
    known["torch", "cross_entropy"] = torch.nn.functional.cross_entropy
    if case.n in COMPILED_WIDTHS and ("torch", name) in known and contender == "torch.compile":
        # What was compiled for other cases would be taken again, or make sizes dynamic, or fill the cache.
        torch._dynamo.reset()
        known["torch.compile", name] = torch.compile(known["torch", name], dynamic=False)
    for peer, each, place, given in PEERS:
        if (peer, each) == (contender, name) and (found := imported(place)) is not None:
            known[peer, each] = lambda *arrays, found=found, given=given: found(*arrays, **given)
    return known.get((contender, name))


PEERS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("liger-kernel", "softmax", "liger_kernel.transformers.functional:liger_softmax", {}),
    ("liger-kernel", "sparsemax", "liger_kernel.transformers.functional:liger_sparsemax", {}),
    ("liger-kernel", "cross_entropy", "liger_kernel.transformers.functional:liger_cross_entropy", {}),
    ("quack", "softmax", "quack.softmax:softmax", {}),
    ("quack", "cross_entropy", "quack.cross_entropy:cross_entropy", {"reduction": "mean"}),
    ("entmax", "sparsemax", "entmax:sparsemax", {"dim": -1}),
    ("entmax", "entmax15", "entmax:entmax15", {"dim": -1}),
    ("entmax", "entmax(1.3)", "entmax:entmax_bisect", {"alpha": 1.3, "dim": -1}),
    ("adasplash", "entmax15", "adasplash:triton_entmax", {"alpha": 1.5}),
    ("adasplash", "entmax(1.3)", "adasplash:triton_entmax", {"alpha": 1.3}),
)
CONTENDERS = ("softplex", "torch", "torch.compile", *dict.fromkeys(peer for peer, *_ in PEERS))


def scores_of(case: Case, device: str, seed: int = 0) -> torch.Tensor:
    """Random scores: N(0, 2), nearly equal, or with one that stands out in each row."""
    generator = torch.Generator(device=device).manual_seed(seed)
    x = torch.randn(case.rows, case.n, device=device, generator=generator)
    x.mul_({"normal": 2.0, "flat": 1e-3, "peaked": 0.1}[case.scores])
    if case.scores == "peaked":
        x[:, case.n // 3] = 20.0
    return x.to(getattr(torch, case.dtype))


def call_of(case: Case, function: Callable[..., Any], x: torch.Tensor) -> Callable[[], Any]:
    """The call that is timed."""
    if case.task.way == "forward":
        return lambda: function(x)
    x = x.detach().requires_grad_()
    if case.task.way == "backward":
        p, g = function(x), torch.randn_like(x)
        return lambda: torch.autograd.grad(p, x, g, retain_graph=True)
    y = torch.randint(case.n, (case.rows,), device=x.device)
    return lambda: torch.autograd.grad(function(x, y), x)


# -- times -----------------------------------------------------------------------------------------------------------


def median_time(call: Callable[[], Any], seconds: float = 0.15) -> float:
    """Seconds of one call by the device's own clock: the median of single calls."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < 5 or (time.monotonic() < end and len(times) < 50):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last) * 1e-3)
    return statistics.median(times)


def captured(call: Callable[[], Any], calls: int = 1) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of some calls, and what the last of them gives whenever it is replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    found = None
    with torch.cuda.graph(graph):
        for _ in range(calls):
            found = call()
    return graph, found


def graph_time(call: Callable[[], Any], calls: int = 20) -> float:
    """Seconds of one call within a captured graph, free of what launching costs."""
    graph, _ = captured(call, calls)
    return median_time(graph.replay) / calls


def copy_bandwidth() -> float:
    """Bytes a second that a device copy reads and writes."""
    source = torch.empty(BYTES, dtype=torch.uint8, device="cuda").random_(0, 256)
    place = torch.empty_like(source)
    return 2 * BYTES / median_time(lambda: place.copy_(source), 0.5)


def share(moved: int, seconds: float, bandwidth: float) -> float:
    """Of the bandwidth of a copy."""
    return moved / seconds / bandwidth


def timed(record: Record, case: Case, bandwidth: float) -> None:
    """A row for each contender that has the task."""
    x = scores_of(case, "cuda")
    for contender in CONTENDERS:
        if record.is_late(5.0):
            return
        row = {"task": case.task.name, "dtype": case.dtype, "n": case.n, "rows": case.rows, "scores": case.scores}
        row |= {"contender": contender, "with graph": case.with_graph}
        try:
            function = function_of(case, contender)
            if function is None:
                continue
            call = call_of(case, function, x.clone())  # some write into what they are given
            seconds = graph_time(call) if case.with_graph else median_time(call)
        except Exception as error:  # noqa: BLE001 - what a peer cannot do is a result
            record.add("failed", **row, error=f"{type(error).__name__}: {error}"[:200])
            torch.cuda.synchronize()
            continue
        record.add("times", **row, seconds=seconds, share=share(case.bytes, seconds, bandwidth))


# -- checks ----------------------------------------------------------------------------------------------------------


def check_rows(n: int, dtype: torch.dtype, seed: int, device: str = "cuda") -> torch.Tensor:
    """Rows that find mistakes: random, tied, flat, peaked, spread, -inf, NaN, nothing but -inf."""
    generator = torch.Generator(device=device).manual_seed(seed)
    x = torch.randn(9, n, device=device, generator=generator) * 2.0
    x[1] = x[1].round()
    x[2] = 0.3
    x[3] *= 1e-4
    x[4, n // 2] = 30.0
    x[5] = torch.linspace(-80.0, 80.0, n, device=device)
    x[6, n // 3 :] = -torch.inf
    x[7, 0] = torch.nan
    x[8] = -torch.inf
    return x.to(dtype)


def worst(got: torch.Tensor, wanted: torch.Tensor, of: torch.Tensor) -> float:
    """The largest error in epsilons of a size; infinity where NaN or zero stand in the wrong place."""
    if not torch.equal(got.isnan(), wanted.isnan()) or not torch.equal(got.isinf(), wanted.isinf()):
        return float("inf")
    eps = torch.finfo(got.dtype).eps
    floor = torch.finfo(got.dtype).tiny / eps
    known = wanted.isfinite()
    off = torch.where(known, (got.double() - wanted).abs(), 0.0)
    return float((off / (torch.where(of.isfinite(), of, 0.0) * eps).clamp_min(floor)).max())


def tried(record: Record, check: Callable[..., None], *arguments: Any) -> None:
    """A check, unless it is too late for it; neither that nor its breaking down ends the run, and both are told."""
    row = {"contender": "softplex", "task": f"{check.__name__}{arguments}"}
    if record.is_late(20.0):
        record.add("failed", **row, error="not begun: too late")
        return
    try:
        check(record, *arguments)
    except Exception as error:  # noqa: BLE001 - what is known so far, and what comes after, is worth keeping
        record.add("failed", **row, error=f"{type(error).__name__}: {error}"[:200])


def maps_with_kernels() -> list[Any]:
    """Each once."""
    import softplex as sx

    alone = [sx.softmax, sx.log_softmax, sx.softmin, sx.log_softmin, sx.sparsemax, sx.entmax15]
    return [*alone, sx.entmax.bind(alpha=1.3)]


def checked(record: Record, n: int, dtype: torch.dtype, device: str = "cuda") -> None:
    """Values and ways back of every map against the float64 formulas, poisoned memory and bits of rows alone."""
    import softplex as sx

    x = check_rows(n, dtype, n, device)
    named = {"dtype": str(dtype).removeprefix("torch."), "n": n}
    g = torch.randn(x.shape, device=device, generator=torch.Generator(device=device).manual_seed(n + 1)).to(dtype)
    for map_ in maps_with_kernels():
        poison = torch.full_like(x, torch.nan)
        del poison  # what is allocated next may lie here
        p, dx = map_(x), map_.vjp(x, g)
        back = taken_back(map_, x, g)
        with sx.kernels("none"):
            wanted, moved = map_(x.double()), map_.vjp(x.double(), g.double())
        is_log = map_.formula.kind == "logarithm"
        size = (
            wanted.abs() if is_log or n == 1 else wanted.abs().nan_to_num(0.0).amax(1, keepdim=True).expand_as(wanted)
        )
        terms = terms_of(map_, wanted, g.double())
        row = {"map": map_.name, **named}
        row |= {"value": worst(p, wanted, size), "vjp": worst(dx, moved, terms), "back": worst(back, moved, terms)}
        row["same bits twice"] = torch.equal(p.view(torch.uint8), map_(x).view(torch.uint8))
        row["same bits alone"] = torch.equal(p[1:2].view(torch.uint8), map_(x[1:2]).view(torch.uint8))
        # In 16 bit the way back starts from weights that are rounded, some of them to 0.
        is_near = row["value"] < 4 and row["vjp"] < 8 and row["back"] < (8 if dtype == torch.float32 else 16)
        row["is good"] = bool(is_near and row["same bits twice"] and row["same bits alone"])
        record.add("checks", **row)
        if not is_log:
            checked_loss(record, map_, x[:6], named)


SLOPES = {"softmax": 1.0, "softmin": 1.0, "sparsemax": 0.0, "entmax15": 0.5}
"""The power of the weights that a slope is; 2 - alpha for others."""


def terms_of(map_: Any, p: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The largest term of each row's vjp: |s g| and s sum |s g| / sum s; for logarithms |g| and p sum |g|."""
    g = g.abs()
    if map_.formula.kind == "logarithm":
        terms = g + p.exp().nan_to_num(0.0) * g.sum(1, keepdim=True)
    else:
        s = torch.where(p > 0, p ** SLOPES.get(map_.name, 0.7), 0.0)
        mass = s.sum(1, keepdim=True)
        terms = s * g + s * (s * g).sum(1, keepdim=True) / torch.where(mass > 0, mass, 1.0)
    return terms.amax(1, keepdim=True).expand_as(p)


def taken_back(function: Callable[..., Any], x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The cotangent of x by autograd."""
    given = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(given), given, g)[0]


def checked_loss(record: Record, map_: Any, x: torch.Tensor, named: dict[str, Any]) -> None:
    """The mean of the losses of ordinary rows, and its gradient under a cotangent that is not 1."""
    import softplex as sx

    loss = sx.cross_entropy if map_ is sx.softmax else map_.loss
    y = torch.arange(len(x), device=x.device) % x.shape[1]
    sign = -1.0 if map_ is sx.softmin else 1.0  # residuals are those of the scores that the map sees
    value, back = loss(x, y), taken_back(lambda x: loss(x, y), x, torch.full_like(x[0, 0], 3.0))
    with sx.kernels("none"):
        wanted, moved = loss(x.double(), y), map_.residual(x.double(), y) * (sign * 3.0 / len(x))
    spread = (x.double().amax(1) - x.double().amin(1)).mean() + wanted
    row = {"map": f"loss of {map_.name}", **named, "value": worst(value, wanted, spread)}
    row["back"] = worst(back, moved, moved.abs().amax(1, keepdim=True).expand_as(moved))
    row["is good"] = bool(row["value"] < 4 and row["back"] < 8)
    record.add("checks", **row)


def checked_layouts(record: Record) -> None:
    """Masks, sinks, temperatures, strides, and more than 2^31 entries."""
    import softplex as sx

    x = torch.randn(64, 1000, device="cuda")
    where = torch.rand(64, 1000, device="cuda") < 0.7
    for options in ({"where": where}, {"sink": 0.5}, {"temperature": 0.3}, {"dim": 0}):
        for map_ in (sx.softmax, sx.sparsemax, sx.entmax15):
            with sx.kernels("none"):
                wanted = map_(x.double(), **options)
            add_layout(record, map_, ",".join(options), worst(map_(x, **options), wanted, wanted.amax()))
    huge = torch.randn((1 << 31) // 4096 + 3, 4096, dtype=torch.bfloat16, device="cuda")
    found = sx.sparsemax(huge)
    with sx.kernels("none"):
        wanted = sx.sparsemax(huge[-3:].double())
    add_layout(record, sx.sparsemax, "more than 2^31 entries", worst(found[-3:], wanted, wanted.amax()))


def checked_batches(record: Record, device: str = "cuda") -> None:
    """A row's bits in batches that lie otherwise, in which its own entries lie as they do."""
    for dtype in (torch.float32, torch.bfloat16):
        for n in (1000, 1001, 40_000, 40_001):
            wide = torch.randn(8, n + 3, device=device, generator=torch.Generator(device=device).manual_seed(n))
            wide = wide.to(dtype)
            rows = [wide[:, 1:-2], wide[:, 1:-2].contiguous(), wide[3:, 1:-2], wide[3:4, 1:-2], wide[3, 1:-2]]
            columns = [wide[:, 1:-2].T.contiguous().repeat(1, 3).T[:8]]
            columns += [columns[0][3:], columns[0][1::2], columns[0][3]]
            for map_ in maps_with_kernels():
                for name, batches, places in (("rows", rows, (3, 3, 0, 0, ...)), ("columns", columns, (3, 0, 1, ...))):
                    bits = [
                        map_(x)[place].contiguous().view(torch.uint8) for x, place in zip(batches, places, strict=True)
                    ]
                    is_same = all(torch.equal(bits[0], each) for each in bits)
                    add_layout(record, map_, f"{name} of {n}, {dtype}", 0.0 if is_same else float("inf"))


def checked_graphs(record: Record) -> None:
    """What a captured graph of values, ways back and losses gives of other numbers than those of the capture."""
    for n in (100, 40_000):
        for map_ in maps_with_kernels():
            x, g = torch.randn(5, n, device="cuda"), torch.randn(5, n, device="cuda")
            call = everything_of(map_, x, g)
            graph, found = captured(call)
            x.copy_(torch.randn_like(x))
            graph.replay()
            add_layout(record, map_, f"a graph, n={n}", apart(found, call()))


def checked_waiting(record: Record, device: str = "cuda") -> None:
    """Rows in parts, whose programs wait for each other, do without, are few, or share the GPU with others'."""
    from softplex.native.gpu import launch, widths

    ways = {
        "nobody waits": (widths, "PATIENCE", 0),
        "three programs a row": (launch, "multiprocessors", lambda _: 3),
    }
    for n in (40_001, 300_000):
        for map_ in maps_with_kernels():
            x, g = torch.randn(2, 4, n, device=device).unbind()
            call = everything_of(map_, x, g)
            wanted = call()
            for way, patch in ways.items():
                with mock.patch.object(*patch):
                    add_layout(record, map_, f"{way}, n={n}", apart(wanted, call()))
            if device == "cuda":
                add_layout(record, map_, f"two streams, n={n}", max(apart(wanted, each) for each in at_once(call)))


def at_once(call: Callable[[], Any]) -> list[Any]:
    """The results of a call that two streams are given many of."""
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    found = []
    for _ in range(10):
        for stream in streams:
            with torch.cuda.stream(stream):
                found.append(call())
    torch.cuda.synchronize()
    return found


def apart(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """0 for the same bits, else infinity."""
    return 0.0 if all(torch.equal(one, other) for one, other in zip(some, others, strict=True)) else float("inf")


def everything_of(map_: Any, x: torch.Tensor, g: torch.Tensor) -> Callable[[], list[torch.Tensor]]:
    """Values, the way back, and that of a loss."""
    import softplex as sx

    loss = map_.loss if map_.formula.kind == "simplex" else sx.cross_entropy
    y, one = torch.arange(len(x), device=x.device), torch.ones((), device=x.device)

    def call() -> list[torch.Tensor]:
        return [map_(x, temperature=0.7), taken_back(map_, x, g), taken_back(lambda x: loss(x, y), x, one)]

    return call


def add_layout(record: Record, map_: Any, options: str, off: float) -> None:
    """What became of a layout."""
    record.add("layouts", **{"map": map_.name, "options": options, "off": off, "is good": off < 4})


def what_is_bad(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks and layouts that are off, and what of this library failed; a peer that fails is a result."""
    bad = [row for kind in ("checks", "layouts") for row in found.get(kind, ()) if not row["is good"]]
    return bad + [row for row in found.get("failed", ()) if row["contender"] == "softplex"]


# -- the picture -----------------------------------------------------------------------------------------------------


def series(found: dict[str, Any], task: str, dtype: str) -> dict[str, list[tuple[int, float]]]:
    """Widths and shares of each contender, on normal scores and without graphs."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in found.get("times", ()):
        if (row["task"], row["dtype"], row["scores"], row["with graph"]) == (task, dtype, "normal", False):
            lines.setdefault(row["contender"], []).append((row["n"], row["share"]))
    return {contender: sorted(line) for contender, line in lines.items()}


def draw(found: dict[str, Any], path: Path) -> Path:
    """Share of a copy's bandwidth by width, one line a contender, one panel a task and dtype."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in found.get("times", ()) if not row["with graph"]))
    panels = [(task, dtype) for task in tasks for dtype in DTYPES if series(found, task, dtype)]
    height = max(1, -(-len(panels) // 2))
    figure = Figure(figsize=(11.0, 0.9 + 2.9 * height), layout="constrained")
    for place, (task, dtype) in enumerate(panels):
        axes = figure.add_subplot(height, 2, place + 1)
        for contender, line in series(found, task, dtype).items():
            is_ours = contender == "softplex"
            widths, shares = zip(*line, strict=True)
            axes.plot(widths, [100 * one for one in shares], "o-", label=contender, lw=2.5 if is_ours else 1.2, ms=4)
        axes.axhline(100, color="0.7", lw=0.8, ls=":")
        axes.set_xscale("log", base=2)
        axes.set_ylim(0, 110)
        axes.set_title(f"{task}, {dtype}", fontsize=10, loc="left")
        axes.set_ylabel("% of a copy", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
    figure.suptitle(
        f"Share of the bandwidth of a device copy, by row length. {found.get('device', '')}, {found.get('date', '')}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


# -- the run ---------------------------------------------------------------------------------------------------------


def run(record: Record) -> None:
    """Smoke, then the figures that matter most, then the other checks, then the rest."""
    import triton

    import softplex as sx

    record.note(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        device=torch.cuda.get_device_name(),
        versions={"softplex": sx.__version__, "torch": torch.__version__, "triton": triton.__version__},
        peers={peer: imported(place) is not None for peer, _, place, _ in PEERS},
    )
    for dtype in (torch.float32, torch.bfloat16):
        for n in (7, 1000, 40_000):
            tried(record, checked, n, dtype)
    bandwidth = copy_bandwidth()
    record.note(**{"copy in bytes a second": bandwidth})
    cases = distinct(plan())
    first = next(place for place, case in enumerate(cases) if case.scores != "normal")
    for case in cases[:first]:
        if not record.is_late(20.0):
            timed(record, case, bandwidth)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for n in (1, 2, 33, 127, 1024, 5000, 16_384, 16_385, 300_001, 3_000_000):
            tried(record, checked, n, dtype)
    for check in (checked_layouts, checked_batches, checked_graphs, checked_waiting):
        tried(record, check)
    for case in cases[first:]:
        if not record.is_late(20.0):
            timed(record, case, bandwidth)
    record.note(**{"was cut short": record.is_late(20.0)})


def main(given: list[str] | None = None) -> int:
    """Run, plan or draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--seconds", type=float, default=560.0, help="nothing is begun after so many")
    parser.add_argument("--plan", action="store_true", help="list the cases and stop")
    parser.add_argument("--draw", type=Path, help="a file of results to be drawn beside it")
    options = parser.parse_args(given)
    if options.plan:
        for case in distinct(plan()):
            print(f"{case.task.name:34} {case.dtype:9} n={case.n:<7} rows={case.rows:<8} {case.scores}")
        return 0
    if options.draw is not None:
        found = json.loads(options.draw.read_text(encoding="utf-8"))
        print(draw(found, options.draw.with_suffix(".png")))
        return 0
    if not torch.cuda.is_available():
        print("bench/gpu.py: torch sees no GPU; give --plan or --draw, or run it where there is one", file=sys.stderr)
        return 1
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = Record(options.out or RESULTS / f"gpu-{today}.json", deadline=time.monotonic() + options.seconds)
    run(record)
    bad = what_is_bad(record.found)
    print(f"{len(record.found['checks'])} checks, {len(bad)} failures; {record.path}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
