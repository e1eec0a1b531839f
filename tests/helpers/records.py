"""Records changed as bas would write them: what a checksum cannot tell, other checks must."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bas.util.files import CHECKSUM, write_json


def rewrite(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record that was read, with the checksum of what it is now."""
    write_json(path, {name: value for name, value in record.items() if name != CHECKSUM})
