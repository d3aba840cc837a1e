"""The kernels of GPUs compiled for GPUs that need not be there, as real calls would have them; nothing is run.

Tensors of the CPU are taken for a GPU's, and where a kernel would be launched it is compiled: down to machine code, of
which the registers and the memory that they spill to are known.
"""

from __future__ import annotations

import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import triton
from triton._C.libtriton import ir
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

OPTIONS = ("num_warps", "maxnreg", "num_stages", "enable_fp_fusion")
TOOLS = Path(nvidia.__file__).parent / "bin"


@dataclass(frozen=True)
class Laid:
    """Where a kernel keeps its numbers."""

    name: str
    capability: int
    layouts: str

    def sums(self):
        """In which layouts it reduces rows: numbers are added in their order."""
        named = dict(re.findall(r"^(#\w+) = (#ttg\.\w+<.*>)$", self.layouts, re.M))
        reduced = re.findall(r'"tt\.reduce".*?\}\) : \((.*?)\) ->', self.layouts, re.S)
        return [re.sub(r"#\w+", lambda found: named.get(found[0], found[0]), one) for one in reduced]


@dataclass(frozen=True)
class Compiled(Laid):
    """What became of a kernel."""

    registers: int
    stack: int
    assembly: str

    def accesses(self, kind):
        """The bytes of each load ("ld") or store ("st") of memory, and whether it is of a vector."""
        found = re.findall(rf"\b{kind}\.global((?:\.\w+)*)", self.assembly)
        sizes = []
        for words in found:
            vector, bits = re.search(r"\.v(\d)", words), re.search(r"\.[busf](\d+)", words)
            sizes.append((int(bits[1]) // 8 * (int(vector[1]) if vector else 1), vector is not None))
        return sizes

    def wide_loads(self):
        """How many loads take 16 bytes."""
        return self.accesses("ld").count((16, True))

    def wide_stores(self):
        """How many stores do."""
        return self.accesses("st").count((16, True))


def source_of(kernel, target, arguments, options):
    """A kernel as a launch with these arguments would compile it: Triton's own reading of them, and its options."""
    backend = make_backend(target)
    bound, specialized, named = binder(kernel, backend)(**arguments, **options)
    packed = kernel._pack_args(backend, options, bound, specialized, named)
    return triton.compiler.ASTSource(kernel, *packed[1:]), packed[0].__dict__


def compiled(kernel, target, arguments, options):
    """Down to machine code."""
    source, options = source_of(kernel, target, arguments, options)
    made = triton.compile(source, target=target, options=options)
    registers, stack = resources(made.asm["cubin"])
    return Compiled(kernel.__name__, target.arch, made.asm["ttgir"], registers, stack, made.asm["ptx"])


def laid(kernel, target, arguments, options):
    """As far as layouts are decided upon, which takes a fifth of the time."""
    source, options = source_of(kernel, target, arguments, options)
    backend, stages, context = make_backend(target), {}, ir.context()
    options = backend.parse_options({**options, **source.parse_options()})
    ir.load_dialects(context)
    backend.load_dialects(context)
    module = source.make_ir(
        target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )
    backend.add_stages(stages, options, source.language)
    for stage in ("ttir", "ttgir"):
        module = stages[stage](module, {})
    return Laid(kernel.__name__, target.arch, str(module))


def binder(kernel, backend):
    return create_function_from_signature(kernel.signature, kernel.params, backend)


def resources(binary):
    """The registers of a thread, and its bytes of stack."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary)
        told = subprocess.run(
            [TOOLS / "cuobjdump", "-res-usage", path], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", told)
    return int(found[1]), int(found[2])


@cache
def why_not():
    """Why nothing can be compiled here, or None."""
    missing = [name for name in ("ptxas", "cuobjdump") if not (TOOLS / name).exists()]
    return f"Triton came without {' and '.join(missing)}" if missing else None


KNOWN = {}
"""What has been compiled in this process."""


@contextmanager
def compiling(capabilities, how=compiled):
    """What is launched within is compiled instead, once for each capability; a list of what came of it."""
    found, seen = [], set()

    def run(kernel, *given, grid, warmup, **named):
        options = {name: named.pop(name) for name in OPTIONS if name in named}
        assert options["enable_fp_fusion"] is False, f"{kernel.__name__}: products and sums may be fused"
        arguments = dict(zip(kernel.arg_names, given, strict=False)) | named
        for capability in capabilities:
            target = GPUTarget("cuda", capability, 32)
            specialized = binder(kernel, make_backend(target))(**arguments, **options)[1]
            key = (kernel.__name__, capability, str(specialized), str(options), how)
            if key not in KNOWN:
                KNOWN[key] = how(kernel, target, arguments, options)
            if key not in seen:
                seen.add(key)
                found.append(KNOWN[key])

    before, JITFunction.run = JITFunction.run, run
    try:
        yield found
    finally:
        JITFunction.run = before
