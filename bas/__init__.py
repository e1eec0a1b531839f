"""`bas`: which downstream model should sit on a frozen speech encoder's features?

The functions here are those of `bas.api`, imported when they are used: `import bas` takes no torch. `search` is missing
among them, for `bas.search` is the room of the search: it is `bas.api.search`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.13.0"
NUMBERS = __version__.rpartition(".")[0]
"""While this stays, the same command gives the same numbers and files: a run of another is not gone on with."""

if TYPE_CHECKING:
    from bas.api import (
        Experiment,
        audit,
        between,
        compare,
        cost,
        dynamics,
        export,
        extract,
        import_features,
        load,
        load_experiment,
        load_results,
        prepare,
        probe,
        retrain,
        shares,
        to_onnx,
        tune,
        words,
        work,
    )
    from bas.errors import UserError

__all__ = [
    "Experiment",
    "UserError",
    "audit",
    "between",
    "compare",
    "cost",
    "dynamics",
    "export",
    "extract",
    "import_features",
    "load",
    "load_experiment",
    "load_results",
    "prepare",
    "probe",
    "retrain",
    "shares",
    "to_onnx",
    "tune",
    "words",
    "work",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("bas.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
