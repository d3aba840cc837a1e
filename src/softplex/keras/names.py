"""The family under its names in Keras: activation="entmax15", loss="sparsemax_loss". Nothing is computed here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

WRONG = ("sparsemax",)
"""Names under which Keras computes something else: [0.5, 0.5] becomes [0.25, 0.25] (keras issue 23425)."""


def known_to_keras(kind: str) -> dict[str, Any]:
    """Where Keras looks names of activations or losses up."""
    module = import_module(f"keras.src.{kind}")
    known = getattr(module, "ALL_OBJECTS_DICT", None)
    if not isinstance(known, dict):
        raise RuntimeError(
            f"register: this version of Keras keeps its {kind} where softplex does not find them; give the callables "
            "of softplex.keras in place of their names"
        )
    return known


def enter(activations: dict[str, Any], losses: dict[str, Any], *, replace: bool) -> None:
    """Make the names known; of those that Keras has, the wrong ones alone are taken over, if they may be."""
    for kind, family in (("activations", activations), ("losses", losses)):
        known = known_to_keras(kind)
        for name, made in family.items():
            if name not in known or (replace and name in WRONG):
                known[name] = made
