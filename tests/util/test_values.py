"""Values of annotated kinds, from texts and from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from bas.util.values import describe, parse_text, read_value

WORD = Literal["sgd", "adamw"]
STATE = int | Literal["last", "best"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "5", 5),
        (float, "1e-3", 0.001),
        (float, "2", 2.0),
        (bool, "true", True),
        (bool, "false", False),
        (str, "2024", "2024"),
        (str, '"a b"', "a b"),
        (WORD, "adamw", "adamw"),
        (int | None, "none", None),
        (int | None, "7", 7),
        (str | None, "None", None),
        (str | None, "nobody", "nobody"),
        (STATE, "6", 6),
        (STATE, "best", "best"),
        (tuple[str, ...], "a,b", ("a", "b")),
        (tuple[str, ...], '["a,b", "c"]', ("a,b", "c")),
        (tuple[str, ...], "", ()),
        (tuple[int, ...], "10, 30", (10, 30)),
        (tuple[STATE, ...], "best,3", ("best", 3)),
        (Literal["all"] | tuple[int, ...], "all", "all"),
        (Literal["all"] | tuple[int, ...], "0,6", (0, 6)),
    ],
)
def test_a_text(kind: Any, text: str, value: Any) -> None:
    result = parse_text(kind, text)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (float, 3, 3.0),
        (str, Path("a/b"), "a/b"),
        (tuple[str, ...], "one", ("one",)),
        (tuple[int, ...], [1, 2], (1, 2)),
        (float | None, "none", None),
        (float | None, None, None),
        (tuple[STATE, ...], ["best", 3], ("best", 3)),
    ],
)
def test_a_files_value(kind: Any, given: object, value: Any) -> None:
    result = read_value(kind, given)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (int, "5"),
        (int, 5.0),
        (int, True),
        (float, "x"),
        (float, False),
        (bool, 1),
        (str, 5),
        (WORD, "adam"),
        (int, None),
        (tuple[int, ...], ["a"]),
        (int | None, "5"),
    ],
)
def test_a_files_value_of_another_kind(kind: Any, given: object) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        read_value(kind, given)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(int, "many"), (int, "2.5"), (float, ""), (bool, "yes"), (WORD, "none"), (tuple[int, ...], "1,x"), (int, "none")],
)
def test_a_text_that_cannot_be(kind: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        parse_text(kind, text)


def test_what_must_be_is_said_in_words() -> None:
    assert describe(int | None) == "a whole number or none"
    assert describe(WORD) == "one of sgd, adamw"
    assert describe(Literal["all"] | tuple[int, ...]) == "all or a list, each a whole number"
