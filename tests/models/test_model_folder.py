"""Folders of strangers: no code of theirs is run, and what is damaged is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import OWN, damaged
from records import record
from safetensors.torch import load, save

import bas
from bas.errors import UserError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("bas.blocks", "nn"), ("bas.blocks", "feed_forward"), ("bas.util.files", "sweep")],
)
def test_only_blocks_of_bas_are_made(copy: Path, module: str, name: str) -> None:
    network = record(copy / "model.json")["network"]
    network["slots"]["layer1"] = {"module": module, "name": name, "given": ["touch executed"], "named": {}}
    damaged(copy, network=network)
    with pytest.raises(UserError, match=f"network: block {module}.{name} is not one of bas.blocks; name the file"):
        bas.load(copy)
    assert not Path("executed").exists()


def test_a_block_of_ones_own_is_asked_for(home: Path) -> None:
    before = Path("opened").read_text()
    with pytest.raises(UserError, match=r"search_spaces\.own\.Own\.Doubled .* with --space, whose code is run"):
        bas.load("own-model")
    assert Path("opened").read_text() == before, "its code was not run"
    assert [one.label for one in bas.load("own-model", spaces=["own.py"]).predict("u00.wav")]
    Path("edited").mkdir(exist_ok=True)
    Path("edited/own.py").write_text(OWN.replace("1.5", "2.5"))
    with pytest.raises(UserError, match=r"own\.py: edited since"):
        bas.load("own-model", spaces=["edited/own.py"])
    with pytest.raises(UserError, match="was made without ser_bas4; it names own"):
        bas.load("own-model", spaces=["ser_bas4"])


def test_a_damaged_folder_is_refused_in_one_line(copy: Path, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    state = load(whole)

    def refused(why: str) -> None:
        with pytest.raises(UserError, match=why) as caught:
            bas.load(copy)
        assert "\n" not in str(caught.value)

    weights.write_bytes(whole[:-100])
    refused("model.safetensors: damaged: ")
    weights.write_bytes(b"")
    refused("model.safetensors: damaged: ")
    weights.unlink()
    refused("model.safetensors: no such file")
    name = next(iter(state))
    weights.write_bytes(save({n: v for n, v in state.items() if n != name}))
    refused(f"{name}: missing")
    weights.write_bytes(save(state | {"more": torch.zeros(1)}))
    refused("more: unknown")
    weights.write_bytes(save(state | {name: torch.zeros(3, 3, 3)}))
    refused(rf"{name}: shape \[3, 3, 3\]")
    weights.write_bytes(save(state | {name: state[name].half()}))
    refused(f"{name}: type torch.float16, model.json makes torch.float32")
    weights.write_bytes(save(state | {name: torch.full_like(state[name], torch.nan)}))
    refused(f"{name}: holds NaN")
    weights.write_bytes(whole)
    bas.load(copy)
    damaged(copy, format=99)
    refused("model.json: format: must be 1, not 99")
    damaged(copy, format=1, stride="two")
    refused("model.json: stride: must be a whole number, not 'two'")
    text = (copy / "model.json").read_text()
    (copy / "model.json").write_text(text.replace('"dull"', '"doll"'))
    refused("model.json: sha256: differs")
    (copy / "model.json").unlink()
    refused("no model here")


def test_a_folder_that_promises_too_much_takes_no_memory(copy: Path) -> None:
    """Its weights are compared before anything of that size is made."""
    network = record(copy / "model.json")["network"]
    damaged(copy, network=network | {"dim": 90_000})
    with pytest.raises(UserError, match="shape"):
        bas.load(copy)
    damaged(copy, network=network | {"dim": 8_000_000})
    with pytest.raises(UserError, match=r"network\.widest: must be 0 to 100,000, not 8000000"):
        bas.load(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("stride", value) for value in (0, -1)),
        *(("temperature", value) for value in (0, -1, None, 10**400)),
        *(("longest", value) for value in (None, -5, 0, 1e308)),
        *(("layers", value) for value in ([], [5], [-1], [0, 0])),
        *(("dtype", value) for value in ("int8", "nn", "bfloat16")),
        *(("outputs", value) for value in ([], ["a", "a"])),
    ],
)
def test_values_that_cannot_be_are_refused(copy: Path, field: str, value: Any) -> None:
    damaged(copy, **{field: value})
    with pytest.raises(UserError, match=f"model.json: {field}: must be ") as caught:
        bas.load(copy)
    assert "\n" not in str(caught.value)


def test_parts_that_do_not_go_together_are_refused(copy: Path) -> None:
    network = record(copy / "model.json")["network"]

    def refused(changed: dict[str, Any], why: str) -> None:
        damaged(copy, network=changed)
        with pytest.raises(UserError, match=why) as caught:
            bas.load(copy)
        assert "\n" not in str(caught.value)

    of_bas: dict[str, Any] = {"module": "bas.blocks", "given": [], "named": None}
    refused(network | {"pool": of_bas | {"name": "Skip"}}, "network: ")
    refused(network | {"pool": None}, "network: kind 'network' with pool None")
    refused(network | {"kind": "other"}, "network: kind 'other'")
    refused(network | {"state": 1}, "network: state 1; allowed: 0 to 0, a place among those it reads")
    refused(network | {"state": -1}, "network: state -1; allowed: 0 to 0")
    refused({"kind": "mean", "members": [network], "weights": [0.5, 0.5]}, "network: 1 members with 2 weights")
    refused({"kind": "mean"}, "network: 0 members with 0 weights")
    huge = of_bas | {"name": "LSTM", "given": [8000]}
    refused(network | {"slots": network["slots"] | {"layer1": huge}}, "is given 8000; at most 1000")
    refused(network | {"slots": network["slots"] | {"layer1": huge | {"given": ["x"]}}}, "network: .* cannot be made")
    nested = network
    for _ in range(150):
        nested = {"kind": "mean", "members": [nested], "weights": [1.0]}
    refused(nested, "nested too deeply")


def test_another_encoder_is_refused(copy: Path, hubert: Path) -> None:
    with pytest.raises(UserError, match=r"another than the model's .*; name its place with --encoder"):
        bas.load(copy, encoder=str(hubert)).predict("u00.wav")
    with pytest.raises(UserError, match=r"no such name|no model folder"):
        bas.load(copy, encoder="./nowhere").predict("u00.wav")
