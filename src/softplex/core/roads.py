"""The door at which arrays of a library that compiles what it runs are met, before any argument is looked at.

A library says there what happens to its arrays: a road takes the method and its arguments as they were given. Arrays
that no library meets go straight on. What a road does stands in the library's backend.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from itertools import count
from typing import Any, TypeVar
from weakref import WeakValueDictionary

Road = Callable[..., Any]
"""road(name, method, owner, x, args, options): the result of owner.method(x, *args, **options), known by its name."""

ROADS: dict[type, Road | None] = {}
"""By the type of x; None: straight on."""

OWNERS: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""Who has methods that arrays enter, by handle: compilers keep words, not objects, and may make numbers symbolic."""

HANDLES = count(1)

AS_IT_STANDS = {"softplex": "runs as it stands"}
"""What carries this under the name `autograph_info__` TensorFlow's AutoGraph does not rewrite."""

F = TypeVar("F", bound=Callable[..., Any])


def handle_for(owner: Any) -> str:
    """A handle by which a compiled call finds its owner."""
    handle = str(next(HANDLES))
    OWNERS[handle] = owner
    return handle


def road_of(kind: type) -> Road | None:
    """The road for arrays of a type, if their library has one, which may be that of a type it inherits from."""
    if kind in ROADS:
        return ROADS[kind]
    torch = sys.modules.get("torch")
    if torch is not None and issubclass(kind, torch.Tensor):
        from softplex.backends.torch.road import road_for

        return road_for(kind)
    for each in kind.__mro__:
        library = each.__module__.partition(".")[0]
        if library in ("keras", "tensorflow"):
            roads: Any = import_module(f"softplex.backends.{library}.road")
            found: Road | None = roads.road_for(kind)
            return found
    ROADS[kind] = None
    return None


def entrance(method: F) -> F:
    """A method that arrays enter by the road of their library."""
    name = method.__name__

    @wraps(method)
    def entered(self: Any, x: Any, *args: Any, **options: Any) -> Any:
        road = road_of(type(x))
        if road is None:
            return method(self, x, *args, **options)
        return road(name, method, self, x, args, options)

    entered.autograph_info__ = AS_IT_STANDS  # type: ignore[attr-defined]
    return entered  # type: ignore[return-value]


class Functions:
    """Who owns the functions that are no object's methods."""

    def __init__(self) -> None:
        self.handle = handle_for(self)


FUNCTIONS = Functions()


def open_to_tensors(function: F) -> F:
    """A function that arrays enter by the road of their library."""
    name = function.__name__

    def method(self: Functions, x: Any, *args: Any, **options: Any) -> Any:
        return function(x, *args, **options)

    setattr(Functions, name, method)

    @wraps(function)
    def entered(x: Any, *args: Any, **options: Any) -> Any:
        road = road_of(type(x))
        if road is None:
            return function(x, *args, **options)
        return road(name, method, FUNCTIONS, x, args, options)

    entered.autograph_info__ = AS_IT_STANDS  # type: ignore[attr-defined]
    return entered  # type: ignore[return-value]
