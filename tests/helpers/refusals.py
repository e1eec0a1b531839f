"""The one line of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bas.errors import UserError


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The one line of the UserError that `call` must raise."""
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message
