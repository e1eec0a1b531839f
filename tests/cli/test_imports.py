"""What is seconds to import waits for the verb that needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "scipy", "pandas", "transformers", "numpy", "sklearn", "matplotlib")


@pytest.mark.parametrize(
    "code",
    [
        "import bas",
        "from bas import Experiment, compare, extract, load_results",
        "from bas.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from bas.cli.main import main\ntry: main(['compare', '--help'])\nexcept SystemExit: pass",
        "from bas.cli.main import main\nassert main(['compare', '--seeds', '0']) == 2",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    script = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
