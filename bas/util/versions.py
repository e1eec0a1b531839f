"""What a result depends on besides its settings: the versions of what computed it."""

from __future__ import annotations

import platform
from importlib.metadata import version

import bas


def versions() -> dict[str, str]:
    """What a result depends on besides its settings."""
    names = ("torch", "transformers", "numpy", "scipy", "soundfile", "h5py", "scikit-learn")
    return {"bas": bas.__version__, "python": platform.python_version(), **{n: version(n) for n in names}}
