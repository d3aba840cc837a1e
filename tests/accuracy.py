"""The errors behind section 4's table: `python tests/accuracy.py [framework]` prints the worst of each kind."""

import sys
import warnings

import frameworks
import laws
import softplex as sx

MEASURING = (
    "values_are_accurate",
    "values_are_accurate_under_a_temperature",
    "values_are_accurate_with_a_sink",
    "vjp_is_accurate",
    "jvp_is_accurate",
    "parameter_derivatives_are_accurate",
    "smooth_max_is_accurate",
    "losses_are_accurate_against_an_index",
    "losses_are_accurate_against_a_distribution",
    "residuals_are_accurate",
)


def measure(framework):
    """Run the laws that record their errors; a law that fails is named beside its numbers."""
    for dtype in framework.dtypes:
        for map_ in sx.MAPS:
            if not framework.runs(laws.name_of(map_)):
                continue
            name, worst, failed = laws.name_of(map_), {}, []
            for law in laws.LAWS:
                if law.name not in MEASURING or not law.covers(name, framework, dtype):
                    continue
                case = laws.Case(map_, name, framework, dtype)
                try:
                    with framework.setting():
                        law.check(case)
                except AssertionError:
                    failed.append(law.name)
                kind = {
                    "values_are_accurate_under_a_temperature": "with T, ",
                    "values_are_accurate_with_a_sink": "with sink, ",
                }
                for (what, of), error in case.worst.items():
                    label = f"{kind.get(law.name, '')}{what} ({of})"
                    worst[label] = max(worst.get(label, 0.0), error)
            yield name, dtype, worst, failed


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else "numpy"
    (framework,) = [each for each in frameworks.FRAMEWORKS if each.name == wanted]
    warnings.simplefilter("error")
    for name, dtype, worst, failed in measure(framework):
        numbers = "; ".join(f"{label} {error:.3g}" for label, error in sorted(worst.items()))
        print(f"{name:12} {dtype:9} {numbers}{'  FAILED: ' + ', '.join(failed) if failed else ''}", flush=True)


if __name__ == "__main__":
    main()
