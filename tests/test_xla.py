"""The kernels as XLA sees them: the interface declared in xla_abi.h, and a handler that believes nothing of a frame."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CPU_DIR = Path(__file__).parents[1] / "src" / "softplex" / "native" / "cpu"
PROGRAM = Path(__file__).parent / "native" / "xla_test.cpp"


def compiler():
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("there is no C++ compiler")
    return found


def test_the_handler_refuses_wrong_frames_and_speaks_the_older_version(tmp_path):
    program = tmp_path / "xla_test"
    strictly = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
    sources = [str(PROGRAM), str(CPU_DIR / "xla.cpp")]
    subprocess.run([compiler(), *strictly, f"-I{CPU_DIR}", *sources, "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "every frame was answered as it should be\n"), done.stdout


# -- XLA's interface ---------------------------------------------------------------------------------------------------

# Ours: theirs, and the names of fields in the same order.
STRUCTS = {
    "Extension": ("XLA_FFI_Extension_Base", {"type": "type", "next": "next"}),
    "Version": (
        "XLA_FFI_Api_Version",
        {"extensions": "extension_start", "major_version": "major_version", "minor_version": "minor_version"},
    ),
    "Metadata": ("XLA_FFI_Metadata", {"version": "api_version", "traits": "traits"}),
    "MetadataExtension": ("XLA_FFI_Metadata_Extension", {"base": "extension_base", "metadata": "metadata"}),
    "ErrorArguments": (
        "XLA_FFI_Error_Create_Args",
        {"extensions": "extension_start", "message": "message", "code": "errc"},
    ),
    "Api": (
        "XLA_FFI_Api",
        {
            "extensions": "extension_start",
            "version": "api_version",
            "internal": "internal_api",
            "create_error": "XLA_FFI_Error_Create",
        },
    ),
    "Buffer": (
        "XLA_FFI_Buffer",
        {"extensions": "extension_start", "type": "dtype", "data": "data", "rank": "rank", "shape": "dims"},
    ),
    "Text": ("XLA_FFI_ByteSpan", {"begin": "ptr", "length": "len"}),
    "Scalar": ("XLA_FFI_Scalar", {"type": "dtype", "value": "value"}),
    "Buffers": (
        "XLA_FFI_Args",
        {"extensions": "extension_start", "count": "size", "kinds": "types", "buffers": "args"},
    ),
    "Attributes": (
        "XLA_FFI_Attrs",
        {
            "extensions": "extension_start",
            "count": "size",
            "kinds": "types",
            "names": "names",
            "values": "attrs",
        },
    ),
    "Frame": (
        "XLA_FFI_CallFrame",
        {
            "extensions": "extension_start",
            "api": "api",
            "context": "ctx",
            "stage": "stage",
            "arguments": "args",
            "results": "rets",
            "attributes": "attrs",
        },
    ),
}
RESULTS = {"extensions": "extension_start", "count": "size", "kinds": "types", "buffers": "rets"}
ENUMS = {
    "ErrorCode::invalid_argument": "XLA_FFI_Error_Code_INVALID_ARGUMENT",
    "ErrorCode::resource_exhausted": "XLA_FFI_Error_Code_RESOURCE_EXHAUSTED",
    "ErrorCode::internal": "XLA_FFI_Error_Code_INTERNAL",
    "ExtensionType::metadata": "XLA_FFI_Extension_Metadata",
    "DataType::boolean": "XLA_FFI_DataType_PRED",
    "DataType::int32": "XLA_FFI_DataType_S32",
    "DataType::int64": "XLA_FFI_DataType_S64",
    "DataType::float16": "XLA_FFI_DataType_F16",
    "DataType::float32": "XLA_FFI_DataType_F32",
    "DataType::float64": "XLA_FFI_DataType_F64",
    "DataType::bfloat16": "XLA_FFI_DataType_BF16",
    "BufferKind::buffer": "XLA_FFI_ArgType_BUFFER",
    "AttributeKind::scalar": "XLA_FFI_AttrType_SCALAR",
    "Stage::execute": "XLA_FFI_ExecutionStage_EXECUTE",
}
WITHOUT_A_SIZE = {"Text", "Scalar", "MetadataExtension"}
WHOLE = {"Extension", "Version", "MetadataExtension", "Buffer", "Text", "Scalar", "Buffers", "Attributes"}


def same_layout(ours, theirs, fields):
    """Assertions that the fields lie alike; a struct that is within another, or in an array, is as large too."""
    for mine, other in fields.items():
        yield f"offsetof({ours}, {mine}) == offsetof({theirs}, {other})"
        yield f"sizeof({ours}::{mine}) == sizeof({theirs}::{other})"
    if ours not in WITHOUT_A_SIZE:
        yield f"offsetof({ours}, struct_size) == 0 && offsetof({theirs}, struct_size) == 0"
    yield f"sizeof({ours}) {'==' if ours in WHOLE else '<='} sizeof({theirs})"


def compiled(assertions):
    """What the compiler says of them."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    source = '#include "xla/ffi/api/c_api.h"\n#include "xla_abi.h"\nusing namespace softplex::xla;\n'
    source += "\n".join(f'static_assert({each}, "differs");' for each in assertions)
    command = [
        compiler(),
        "-std=c++17",
        "-fsyntax-only",
        f"-I{CPU_DIR}",
        "-isystem",
        jax.ffi.include_dir(),
        "-xc++",
        "-",
    ]
    return subprocess.run(command, input=source, capture_output=True, text=True).stderr


def test_the_interface_is_that_of_the_installed_jaxlib():
    assertions = [f"static_cast<int>({mine}) == {theirs}" for mine, theirs in ENUMS.items()]
    assertions += ["static_cast<int>(BufferKind::buffer) == XLA_FFI_RetType_BUFFER"]
    assertions += ["sizeof(Stage) == sizeof(XLA_FFI_ExecutionStage)", "MAJOR_VERSION == XLA_FFI_API_MAJOR"]
    for ours, (theirs, fields) in STRUCTS.items():
        assertions += same_layout(ours, theirs, fields)
    assertions += same_layout("Buffers", "XLA_FFI_Rets", RESULTS)
    assert compiled(assertions) == ""


@pytest.mark.parametrize("wrong_one", ["offsetof(Frame, stage) == 8", "static_cast<int>(DataType::int64) == 4"])
def test_a_difference_of_the_interface_is_seen(wrong_one):
    assert "differs" in compiled([wrong_one])


def declared(name):
    """The fields of a struct of ours, as the header has them."""
    body = (CPU_DIR / "xla_abi.h").read_text().partition(f"struct {name} {{")[2].partition("};")[0]
    return [
        line.rstrip(";").replace(")(ErrorArguments*)", "").split("*")[-1].split()[-1] for line in body.split("\n")[1:-1]
    ]


def test_every_field_and_every_value_is_compared():
    text = (CPU_DIR / "xla_abi.h").read_text()
    for name, (_, fields) in STRUCTS.items():
        assert [field for field in declared(name) if field != "struct_size"] == list(fields), name
    assert re.findall(r"^struct (\w+) \{", text, re.MULTILINE) == list(STRUCTS)
    assert sorted(re.findall(r"(\w+) = \d+[,} ]", text)) == sorted(each.split("::")[1] for each in ENUMS)
