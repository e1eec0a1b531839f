"""The versions of the software that computed a result."""

from __future__ import annotations

import platform
from importlib.metadata import version

import bas


def versions() -> dict[str, str]:
    """The versions of bas, Python and the libraries that numbers depend on, by name."""
    names = ("torch", "transformers", "numpy", "scipy", "soundfile", "h5py", "scikit-learn")
    return {"bas": bas.__version__, "python": platform.python_version(), **{n: version(n) for n in names}}
