"""Dataclasses as JSON and back: nothing is lost, and nothing else is taken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from bas.errors import UserError
from bas.util.files import read_record, write_json
from bas.util.typed import from_plain, to_plain


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    DERIVED: ClassVar = ("length",)

    x: float
    name: str | None = None

    @property
    def length(self) -> float:
        return abs(self.x)


@dataclass(frozen=True)
class Other:
    why: str


@dataclass(frozen=True)
class Shape:
    points: tuple[Point, ...]
    pair: tuple[int, float]
    by_state: Mapping[int, Mapping[str, float]]
    kind: Literal["open", "closed"]
    colour: Colour
    values: np.ndarray
    layer: float | int | str
    centre: Point | Other | None
    flag: bool = False


SHAPE = Shape(
    *((Point(-1.5, "a"), Point(2.0)), (1, 2.0), {3: {"WA": 0.5}}, "open", Colour.RED, np.array([[1, 2]])),
    *(7, Other("refused")),
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", to_plain(SHAPE))
    raw = read_record(tmp_path / "a.json", "")
    assert raw["points"][0] == {"x": -1.5, "name": "a", "length": 1.5}, "a derived number, for other programs"
    assert raw["by_state"] == {"3": {"WA": 0.5}}
    read = from_plain(Shape, raw, tmp_path / "a.json")
    assert to_plain(read) == to_plain(SHAPE)
    assert read.points == SHAPE.points
    assert read.by_state == SHAPE.by_state
    assert type(read.layer) is int
    assert read.colour is Colour.RED
    assert read.values.tolist() == [[1, 2]]
    assert read.centre == Other("refused")


def test_a_number_that_is_none_is_read_as_nan_where_there_must_be_one(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", to_plain(Point(-np.inf)))
    assert np.isnan(from_plain(Point, read_record(tmp_path / "a.json", ""), "a").x)
    write_json(tmp_path / "b.json", to_plain(replace(SHAPE, values=np.array([0.5, np.nan]))))
    values = from_plain(Shape, read_record(tmp_path / "b.json", ""), "b").values
    np.testing.assert_array_equal(values, [0.5, np.nan])
    assert type(from_plain(Point, {"x": 1}, "a").x) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": [{"name": "a"}]}, "f.json: points[0]: x is missing"),
        ({"points": [{"x": 1.0}, {"x": "far"}]}, "f.json: points[1].x: must be a number, not 'far'"),
        ({"points": [{"x": True}]}, "f.json: points[0].x: must be a number, not 'True'"),
        ({"points": {"x": 1.0}}, "f.json: points: must be a list, not \"{'x': 1.0}\""),
        ({"colour": "blue"}, "f.json: colour: must be one of red, not 'blue'"),
        ({"kind": "ajar"}, "f.json: kind: must be one of open, closed, not 'ajar'"),
        ({"pair": [1]}, "f.json: pair: must be a list of 2, not '[1]'"),
        ({"pair": [1.5, 2]}, "f.json: pair[0]: must be a whole number, not '1.5'"),
        ({"by_state": {"three": {}}}, "f.json: by_state: its keys must be whole numbers, not 'three'"),
        ({"by_state": {"3": {"WA": []}}}, "f.json: by_state.3.WA: must be a number, not '[]'"),
        ({"flag": 1}, "f.json: flag: must be true or false, not '1'"),
        ({"values": [[1], [2, 3]]}, "f.json: values: must be a list of numbers, or of lists of one length"),
        ({"values": 3}, "f.json: values: must be a list, not '3'"),
        ({"more": 1}, "f.json: more is unknown; its fields are points, "),
    ],
)
def test_anything_else_is_refused_by_file_and_field(change: dict[str, Any], message: str) -> None:
    raw = json.loads(json.dumps(to_plain(SHAPE))) | change
    with pytest.raises(UserError) as error:
        from_plain(Shape, raw, "f.json")
    assert str(error.value).startswith(message)


def test_a_remedy_is_named() -> None:
    with pytest.raises(UserError, match=r"^f\.json: must be an object, not '3'; make it again$"):
        from_plain(Point, 3, "f.json", "make it again")
