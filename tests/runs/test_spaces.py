"""The contract of a search space: what every file in `search_spaces/`, and any user's own, must hold."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bas.blocks import FFN, MSA, MeanPool, TransformerBlock
from bas.errors import UserError
from bas.networks.network import FrameLinear, build
from bas.networks.supernet import Supernet
from bas.runs.spaces import load_space, shipped
from bas.search.search import search
from bas.space import Architecture, Choices, SearchSpace
from bas.tasks import Classification
from bas.training.batches import Data
from bas.training.settings import settings

IN_DIM, DIM, OUTPUTS = 12, 16, 3
LENGTHS = (9, 1, 5, 14)


class TanhStem(nn.Module):
    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, dim)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.project(x_BTI).tanh()
        return out


class MaxPool(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return x_BTD.masked_fill(~mask_BT[..., None], -torch.inf).amax(1)


LAYER: Choices = {"MSA": partial(MSA, num_heads=4), "FFN": FFN}
ENDS = SearchSpace(
    slots={"layer1": LAYER},
    stem={"linear": FrameLinear, "tanh": TanhStem},
    pool={"mean": MeanPool, "max": MaxPool},
)
"""A space whose stem and pool are searched too."""


@cache
def space_of(name: str) -> SearchSpace:
    return ENDS if name == "stem and pool" else load_space(name).space


every_space = pytest.mark.parametrize("name", [*shipped(), "stem and pool"])


def supernet_of(name: str) -> Supernet:
    """In eval mode, with no theta at its start."""
    torch.manual_seed(0)
    supernet = Supernet(space_of(name), IN_DIM, DIM, OUTPUTS).eval()
    with torch.no_grad():
        for part in supernet.mixed().values():
            part.theta.normal_()
    return supernet


def some_architectures(space: SearchSpace) -> list[Architecture]:
    """Each candidate of each part at least once."""
    every = list(space.architectures())
    return [every[0], every[-1], *random.Random(0).sample(every, min(5, len(every)))] + [
        next(a for a in every if a[slot] == choice) for slot, choices in space.searched.items() for choice in choices
    ]


def networks(supernet: Supernet) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The supernet under soft gates, and discrete architectures cut out of it."""
    gates = supernet.probabilities()
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"soft gates": lambda x, mask: supernet(x, mask, gates)}
    return found | {str(a): supernet.discrete(a) for a in some_architectures(supernet.space)}


def utterances() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, IN_DIM, generator=generator) for length in LENGTHS]


def padded(frames: list[Tensor], length: int, garbage: float = 0.0) -> tuple[Tensor, Tensor]:
    """`x_BTI` of that many frames and its mask; noise of that size on the padding."""
    x_BTI = torch.randn(len(frames), length, IN_DIM, generator=torch.Generator().manual_seed(2)) * garbage
    for row, x_TI in zip(x_BTI, frames, strict=True):
        row[: len(x_TI)] = x_TI
    return x_BTI, torch.arange(length) < torch.tensor([len(x_TI) for x_TI in frames])[:, None]


# --- every space ---


@every_space
def test_padding_never_changes_an_output(name: str) -> None:
    supernet, frames = supernet_of(name), utterances()
    with torch.no_grad():
        for which, network in networks(supernet).items():
            alone_BO = torch.cat([network(*padded([x_TI], len(x_TI))) for x_TI in frames])
            for length, garbage in ((max(LENGTHS), 0.0), (max(LENGTHS), 1e4), (31, 1e4)):
                together_BO = network(*padded(frames, length, garbage))
                torch.testing.assert_close(together_BO, alone_BO, atol=1e-5, rtol=1e-5, msg=lambda m, w=which: w + m)


@every_space
def test_batch_size_and_order_never_change_an_output(name: str) -> None:
    supernet = supernet_of(name)
    x_BTI, mask_BT = padded(utterances(), max(LENGTHS))
    shuffle = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for network in networks(supernet).values():
            whole_BO = network(x_BTI, mask_BT)
            pairs_BO = torch.cat([network(x, m) for x, m in zip(x_BTI.split(2), mask_BT.split(2), strict=True)])
            torch.testing.assert_close(pairs_BO, whole_BO, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(
                network(x_BTI[shuffle], mask_BT[shuffle]), whole_BO[shuffle], atol=1e-5, rtol=1e-5
            )


@every_space
def test_every_parameter_learns_under_soft_gates(name: str) -> None:
    supernet = supernet_of(name).train()
    gates = {part: mixed.theta.softmax(0) for part, mixed in supernet.mixed().items()}
    supernet(*padded(utterances(), max(LENGTHS)), gates).square().sum().backward()
    for parameter, p in supernet.named_parameters():
        assert p.grad is not None, parameter
        assert p.grad.isfinite().all(), parameter
        # A key's bias shifts all scores alike and rightly gets nothing, so biases are asked for no more than that.
        assert p.grad.any() or parameter.endswith("bias"), parameter


@every_space
def test_only_the_chosen_candidates_learn_in_a_discrete_network(name: str) -> None:
    supernet = supernet_of(name).train()
    architecture = some_architectures(supernet.space)[1]
    supernet.discrete(architecture)(*padded(utterances(), max(LENGTHS))).square().sum().backward()
    for parameter, p in supernet.named_parameters():
        part = parameter.split(".")[1]
        off_path = part in architecture.as_dict() and f".candidates.{architecture[part]}." not in parameter
        assert (p.grad is None) == off_path, parameter


@every_space
def test_one_hot_gates_are_the_discrete_network(name: str) -> None:
    supernet = supernet_of(name)
    batch = padded(utterances(), max(LENGTHS))
    with torch.no_grad():
        for architecture in some_architectures(supernet.space):
            one_hot_BO = supernet(*batch, supernet.one_hot(architecture))
            assert torch.equal(supernet.discrete(architecture)(*batch), one_hot_BO)

            built = build(supernet.space, architecture, IN_DIM, DIM, OUTPUTS).eval()
            assert not torch.equal(built(*batch), one_hot_BO)  # its weights are fresh
            built.load_state_dict(weights_of(supernet, architecture))
            assert torch.equal(built(*batch), one_hot_BO)


def weights_of(supernet: Supernet, architecture: Architecture) -> dict[str, Tensor]:
    """The supernet's weights under the names they have in that architecture's own network."""
    found = {}
    for parameter, value in supernet.state_dict().items():
        for part, choice in architecture.blocks:
            if parameter.startswith(f"parts.{part}.candidates.{choice}."):
                found[parameter.replace(f".candidates.{choice}.", ".", 1)] = value
        if ".candidates." not in parameter and not parameter.endswith(".theta"):
            found[parameter] = value
    return found


@every_space
def test_discrete_is_cut_out_without_copying(name: str) -> None:
    supernet = supernet_of(name)
    network = supernet.discrete(next(supernet.space.architectures()))
    owned = {id(p) for p in supernet.parameters()}
    assert all(id(p) in owned for p in network.parameters())
    assert not network.training
    assert supernet.train().discrete(next(supernet.space.architectures())).training


@every_space
def test_architecture_parameters_are_saved_and_loaded(name: str, tmp_path: Path) -> None:
    supernet = supernet_of(name)
    assert {f"parts.{part}.theta" for part in supernet.space.searched} <= set(supernet.state_dict())
    torch.save(supernet.state_dict(), tmp_path / "supernet.pt")
    torch.manual_seed(9)
    other = Supernet(supernet.space, IN_DIM, DIM, OUTPUTS).eval()
    other.load_state_dict(torch.load(tmp_path / "supernet.pt", weights_only=True))
    assert other.argmax() == supernet.argmax()
    batch = padded(utterances(), max(LENGTHS))
    assert torch.equal(other(*batch, other.probabilities()), supernet(*batch, supernet.probabilities()))


@every_space
def test_enumeration_is_complete_and_ordered(name: str) -> None:
    space = space_of(name)
    every = list(space.architectures())
    assert len(every) == len(set(every)) == space.size
    assert every == list(space.architectures())
    for architecture in every:
        space.check(architecture)
        assert Architecture.of(architecture.as_dict()) == architecture


@pytest.mark.parametrize(
    ("name", "size"),
    [("ser_bas3", 27), ("ser_bas4", 81), ("speaker_id", 9), ("emotion_share", 32), ("stem and pool", 8)],
)
def test_sizes(name: str, size: int) -> None:
    assert space_of(name).size == size


def test_an_architecture_reads_from_input_to_output() -> None:
    every = list(ENDS.architectures())
    assert str(every[0]) == "linear > MSA > mean"
    assert every[0].as_dict() == {"stem": "linear", "layer1": "MSA", "pool": "mean"}
    assert str(every[-1]) == "tanh > FFN > max"


def test_the_shipped_example_is_short_and_a_task_of_its_own() -> None:
    example = load_space("speaker_id")
    assert len(example.source.splitlines()) < 30
    assert example.task == Classification("speaker", ("text",), "text:5", "speaker-id")
    assert load_space("ser_bas4").task is None  # emotion recognition


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"layer1": "MSA", "pool": "mean"}, "slots layer1, pool are not this space's stem, layer1, pool"),
        ({"layer1": "MSA", "stem": "tanh", "pool": "mean"}, "slots layer1, stem, pool are not"),
        ({"stem": "tanh", "layer1": "MSA+FFN", "pool": "mean"}, r"layer1='MSA\+FFN' is not one of MSA, FFN"),
    ],
)
def test_an_architecture_of_another_space_is_refused(chosen: Mapping[str, str], message: str) -> None:
    architecture = Architecture.of(chosen)
    for use in (ENDS.check, Supernet(ENDS, 4, 4, 2).discrete, lambda a: build(ENDS, a, 4, 4, 2)):
        with pytest.raises(UserError, match=message):
            use(architecture)


# --- signatures ---


def test_signatures_are_alike_in_every_process() -> None:
    code = (
        "import json; from bas.runs.spaces import load_space, shipped;"
        "print(json.dumps({n: load_space(n).space.signature for n in shipped()}))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(fresh.stdout) == {name: load_space(name).space.signature for name in shipped()}


def test_a_signature_changes_with_whatever_changes_the_space() -> None:
    blocks = dict(LAYER)
    spaces = [
        ENDS,
        replace(ENDS, slots={"layer2": LAYER}),
        replace(ENDS, slots={"layer1": LAYER, "layer2": LAYER}),
        replace(ENDS, slots={"layer1": {"attention": blocks["MSA"], "FFN": FFN}}),
        replace(ENDS, slots={"layer1": {"FFN": FFN, "MSA": blocks["MSA"]}}),
        replace(ENDS, slots={"layer1": {"MSA": MSA, "FFN": FFN}}),
        replace(ENDS, slots={"layer1": {"MSA": partial(MSA, num_heads=2), "FFN": FFN}}),
        replace(ENDS, slots={"layer1": {"MSA": partial(TransformerBlock, num_heads=4), "FFN": FFN}}),
        replace(ENDS, stem=None),
        replace(ENDS, stem=TanhStem),
        replace(ENDS, pool=MeanPool),
        replace(ENDS, pool={"mean": MeanPool}),
    ]
    assert len({s.signature for s in spaces}) == len(spaces)
    again = {"MSA": partial(MSA, num_heads=4), "FFN": FFN}
    assert replace(ENDS, slots={"layer1": again}).signature == ENDS.signature


def test_a_signature_depends_neither_on_the_folder_nor_on_the_order_of_arguments(tmp_path: Path) -> None:
    def factory(*names: str) -> partial[MSA]:
        return partial(MSA, **dict.fromkeys(names, 1))

    assert replace(ENDS, pool=factory("a", "b")).signature == replace(ENDS, pool=factory("b", "a")).signature
    signatures = set()
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(OWN)
        signatures.add(load_space(str(tmp_path / folder / "mine.py")).space.signature)
    assert len(signatures) == 1


# --- files ---

OWN = '''"""A user's own file: gated blocks, and languages told apart with smoothed labels."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace
from bas.tasks import Classification


class Gated(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.twice = nn.Linear(dim, 2 * dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return F.glu(self.twice(x_BTD), dim=-1)


@dataclass(frozen=True)
class Smoothed(Classification):
    def loss(self, outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        return F.cross_entropy(outputs_BO, targets_B, label_smoothing=0.1)


space, task = SearchSpace({"layer1": {"gated": Gated, "FFN": FFN}}, MeanPool), Smoothed("language", name="language-id")
'''


def test_a_users_block_and_task_in_one_short_file(tmp_path: Path) -> None:
    assert len(OWN.splitlines()) < 30
    path = tmp_path / "own.py"
    path.write_text(OWN)
    mine = load_space(str(path))
    assert (mine.name, mine.path, mine.source, mine.task.label) == ("own", path, OWN, "language")
    assert [str(a) for a in mine.space.architectures()] == ["gated", "FFN"]

    torch.manual_seed(0)
    lengths_U = torch.tensor([3, 5, 4, 2])
    frames_ND = torch.randn(int(lengths_U.sum()), IN_DIM)
    data = Data(
        frames_ND,
        lengths_U.cumsum(0) - lengths_U,
        lengths_U,
        torch.tensor([0, 1, 2, 0]),
        torch.zeros(4, IN_DIM),
    )
    supernet = Supernet(mine.space, IN_DIM, DIM, OUTPUTS)
    found = search(
        supernet,
        mine.task.loss,
        data,
        torch.arange(4),
        settings("cpu", {"epochs": "2", "strategy": "gumbel"}),
        0,
        lambda record: {},
    )
    mine.space.check(found.architecture)
    x_BTI, mask_BT, _ = data.batch(torch.arange(4))
    assert build(mine.space, found.architecture, IN_DIM, DIM, OUTPUTS)(x_BTI, mask_BT).shape == (4, OUTPUTS)


def test_a_file_edited_twice_in_a_second_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    loaded = []
    for heads in (2, 4):
        path.write_text(
            "from functools import partial\nfrom bas.blocks import MSA, MeanPool\nfrom bas.space import SearchSpace\n"
            f"space = SearchSpace({{'a': {{'MSA': partial(MSA, num_heads={heads})}}}}, MeanPool)\n"
        )
        loaded.append(load_space(str(path)))
    for what in ("digest", "source"):
        assert getattr(loaded[0], what) != getattr(loaded[1], what)
    assert loaded[0].space.signature != loaded[1].space.signature
    assert [p.name for p in tmp_path.iterdir()] == ["own.py"]


HEAD = "from bas.blocks import FFN, MeanPool\nfrom bas.space import SearchSpace\nfrom functools import partial\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", r"defines no `space = SearchSpace\(...\)`"),
        ("space = {'a': 1}\n", "defines no `space"),
        ("import no_such_module_at_all\n", "cannot be imported: ModuleNotFoundError: No module named 'no_such"),
        ("space = SearchSpace(\n", "cannot be imported: SyntaxError: "),
        ("raise RuntimeError('first\\nsecond')\n", "cannot be imported: RuntimeError: first second$"),
        (f"{HEAD}space = SearchSpace({{'a': {{'x': lambda dim: FFN(dim)}}}}, MeanPool)\n", "a lambda or local func"),
        (f"{HEAD}space = SearchSpace({{'a': {{'x': FFN}}}}, lambda dim: MeanPool(dim))\n", "a lambda or local func"),
        (f"{HEAD}space = SearchSpace({{'a': {{'x': FFN(8)}}}}, MeanPool)\n", "a lambda or local func"),
        (f"{HEAD}space = SearchSpace({{'a': {{'x': partial(FFN, object())}}}}, MeanPool)\n", "plain values only"),
        (f"{HEAD}space = SearchSpace({{'a': {{'x': partial(FFN, (1, object()))}}}}, MeanPool)\n", "plain values only"),
        (f"{HEAD}space = SearchSpace({{'layer 1': {{'x': FFN}}}}, MeanPool)\n", "slot 'layer 1' must be an ident"),
        (f"{HEAD}space = SearchSpace({{'pool': {{'x': FFN}}}}, MeanPool)\n", "slot 'pool' must be an ident"),
        (f"{HEAD}space = SearchSpace({{}}, MeanPool)\n", "slots is empty"),
        (f"{HEAD}space = SearchSpace({{'a': {{}}}}, MeanPool)\n", "a has no candidate"),
        (f"{HEAD}space = SearchSpace({{'a': {{'x': FFN}}}}, {{}})\n", "pool has no candidate"),
        (f"{HEAD}space = SearchSpace({{'a': {{'v1.0': FFN}}}}, MeanPool)\n", "hold a dot: 'v1.0'"),
        (f"{HEAD}space = SearchSpace({{'a': {{'': FFN}}}}, MeanPool)\n", "may not be empty"),
        ("# \xe9\n".encode("latin-1"), "cannot be read: 'utf-8' codec"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, source: Any, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(UserError, match=message) as caught:
        load_space(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ser_bas5", "nowhere/at_all.py", "", "README.txt"])
def test_a_missing_file_is_one_line_that_lists_what_ships(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.txt").write_text("not Python")
    listed = re.escape(f"no such file; shipped: {', '.join(shipped())}; or a .py path")
    with pytest.raises(UserError, match=listed) as caught:
        load_space(name)
    assert "\n" not in str(caught.value)


def test_spaces_are_counted_without_torch() -> None:
    code = "import sys, bas.space; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
