"""Files of scores become files of weights, in blocks, so that a file may be larger than memory.

One module for each concern: `apply` (the way of a file), `blocks` (which pieces of an array go through together),
`arrays` (.npy, .npz, .safetensors), `tables` (.csv, .parquet), `sparse` (the support alone), `selection` (the k largest
weights), `outputs` (nothing half-written is left). No map is known here: what turns a block of scores into weights is a
function that the caller passes.
"""

from softplex.files.apply import ARRAY_SUFFIXES, SUFFIXES, TABLE_SUFFIXES, Request, Summary, apply_file
from softplex.files.blocks import Limits
from softplex.files.errors import FileError, UsageError

__all__ = [
    "ARRAY_SUFFIXES",
    "SUFFIXES",
    "TABLE_SUFFIXES",
    "FileError",
    "Limits",
    "Request",
    "Summary",
    "UsageError",
    "apply_file",
]
