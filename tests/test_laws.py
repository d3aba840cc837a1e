"""Every law on every map under every framework and dtype. A new map in `softplex.MAPS` is here without being told."""

import pytest

import laws
import softplex as sx
from frameworks import FRAMEWORKS

CASES = [
    pytest.param(law, map_, framework, dtype, id=f"{law.name}-{laws.name_of(map_)}-{framework.name}-{dtype}")
    for map_ in sx.MAPS
    for framework in FRAMEWORKS
    for dtype in framework.dtypes
    for law in laws.LAWS
    if law.covers(laws.name_of(map_), framework, dtype)
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("law", "map_", "framework", "dtype"), CASES)
def test_law(law, map_, framework, dtype):
    if framework.missing:
        pytest.skip(framework.missing)
    with framework.setting():
        law.check(laws.Case(map_, laws.name_of(map_), framework, dtype))
