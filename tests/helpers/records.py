"""Records changed as bas would write them: what a checksum cannot tell, other checks must."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bas.util.files import CHECKSUM, write_json


def record(path: Path) -> dict[str, Any]:
    """What a record says, without its checksum, which is of the seconds too."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: one for name, one in value.items() if name != CHECKSUM}


def rewrite(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record that was read, with the checksum of what it is now."""
    write_json(path, {name: value for name, value in record.items() if name != CHECKSUM})
