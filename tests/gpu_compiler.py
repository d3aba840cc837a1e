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

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.int16: "*i16",
    torch.int32: "*i32",
}
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
TOOLS = Path(nvidia.__file__).parent / "bin"


@dataclass(frozen=True)
class Compiled:
    """What became of a kernel."""

    name: str
    capability: int
    registers: int
    stack: int
    assembly: str

    def wide_loads(self):
        """How many loads take 16 bytes."""
        return len(re.findall(r"ld\.global[^;]*\.v4\.b32", self.assembly)) + len(
            re.findall(r"ld\.global[^;]*\.v2\.b64", self.assembly)
        )


def kind_of(value):
    """The type of an argument as a launch would find it."""
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, tuple):
        return tuple(kind_of(each) for each in value)
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    return "fp32"


def compiled(kernel, capability, arguments, options):
    """A kernel compiled for the arguments of a launch."""
    signature, constants, hints = {}, {}, {}
    for parameter in kernel.params:
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.num,] = "constexpr", value
        else:
            signature[parameter.name] = kind_of(value)
            if isinstance(value, torch.Tensor) and value.data_ptr() % 16 == 0:
                hints[parameter.num,] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(kernel, signature, constants, hints)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, stack = resources(made.asm["cubin"])
    return Compiled(kernel.__name__, capability, registers, stack, made.asm["ptx"])


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


@contextmanager
def compiling(capabilities):
    """What is launched within is compiled instead, once for each capability; a list of what came of it."""
    found, seen = [], set()

    def run(kernel, *given, grid, warmup, **named):
        options = {name: named.pop(name) for name in OPTIONS if name in named}
        arguments = dict(zip(kernel.arg_names, given, strict=False)) | named
        key = (
            kernel.__name__,
            *((name, kind_of(v) if isinstance(v, torch.Tensor) else v) for name, v in arguments.items()),
        )
        for capability in capabilities:
            if (key, capability) not in seen:
                seen.add((key, capability))
                found.append(compiled(kernel, capability, arguments, options))

    before, JITFunction.run = JITFunction.run, run
    try:
        yield found
    finally:
        JITFunction.run = before
