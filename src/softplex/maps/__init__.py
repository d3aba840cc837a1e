"""The family: one file a map, to be read beside its paper. A new map is a file here and one line below."""

from __future__ import annotations

from softplex.core.map import Map as _Map
from softplex.maps.softmax import softmax as softmax
from softplex.maps.softmax import log_softmax as log_softmax
from softplex.maps.softmax import softmin as softmin
from softplex.maps.softmax import log_softmin as log_softmin
from softplex.maps.sparsemax import sparsemax as sparsemax
from softplex.maps.entmax import entmax as entmax
from softplex.maps.entmax import entmax15 as entmax15
from softplex.maps.normmax import normmax as normmax
from softplex.maps.budget import budget as budget

MAPS: tuple[_Map, ...] = tuple(value for value in list(globals().values()) if isinstance(value, _Map))
"""Every map imported above, in that order."""
