"""Search spaces and their files. What every file must hold is in tests/testing/test_contracts.py."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from stem_and_pool import LAYER, TanhStem
from stem_and_pool import space as ENDS

from bas.blocks import FFN, MSA, MeanPool, Skip, TransformerBlock
from bas.errors import UserError
from bas.networks.network import build
from bas.networks.supernet import Supernet
from bas.runs.spaces import load_space, shipped
from bas.search.search import search
from bas.space import Architecture, Choices, SearchSpace, told
from bas.tasks import Classification
from bas.training.batches import Data
from bas.training.settings import settings

IN_DIM, DIM, OUTPUTS = 12, 16, 3


@cache
def space_of(name: str) -> SearchSpace:
    return ENDS if name == "stem and pool" else load_space(name).space


every_space = pytest.mark.parametrize("name", [*shipped(), "stem and pool"])


def supernet_of(name: str) -> Supernet:
    """In eval mode, with no theta at its start."""
    torch.manual_seed(0)
    supernet = Supernet(space_of(name), IN_DIM, DIM, OUTPUTS).eval()
    with torch.no_grad():
        for part in supernet.mixed_parts().values():
            part.theta.normal_()
    return supernet


# --- every space ---


@every_space
def test_discrete_is_cut_out_without_copying(name: str) -> None:
    supernet = supernet_of(name)
    network = supernet.discrete(next(supernet.space.architectures()))
    owned = {id(p) for p in supernet.parameters()}
    assert all(id(p) in owned for p in network.parameters())
    assert not network.training
    assert supernet.train().discrete(next(supernet.space.architectures())).training


@every_space
def test_enumeration_is_complete_and_ordered(name: str) -> None:
    space = space_of(name)
    every = list(space.architectures())
    assert len(every) == len(set(every)) == space.size
    assert every == list(space.architectures())
    for architecture in every:
        space.check(architecture)
        assert Architecture.of(architecture.to_dict()) == architecture


@pytest.mark.parametrize(
    ("name", "size"),
    [("ser_bas3", 27), ("ser_bas4", 81), ("speaker_id", 9), ("emotion_share", 32), ("stem and pool", 8)],
)
def test_sizes(name: str, size: int) -> None:
    assert space_of(name).size == size


def test_an_architecture_reads_from_input_to_output() -> None:
    every = list(ENDS.architectures())
    assert str(every[0]) == "linear > MSA > mean"
    assert every[0].to_dict() == {"stem": "linear", "layer1": "MSA", "pool": "mean"}
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
    again: Choices = {"MSA": partial(MSA, num_heads=4), "FFN": FFN}
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


# --- numbers and samples ---


@every_space
def test_a_number_is_that_of_the_order(name: str) -> None:
    space = space_of(name)
    for number, architecture in enumerate(itertools.islice(space.architectures(), 2000)):
        assert space.at(number) == architecture
        assert space.number(architecture) == number
    *_, last = space.architectures()
    assert space.at(space.size - 1) == last
    with pytest.raises(AssertionError):
        space.at(space.size)


SKIPPED: Choices = {"none": Skip, "FFN": FFN, "also none": Skip}
ODD = SearchSpace({"a": SKIPPED, "b": SKIPPED, "c": {"FFN": FFN, "MSA": MSA}, "d": SKIPPED, "e": SKIPPED}, MeanPool)


@pytest.mark.parametrize("space", [ODD, ENDS, space_of("ser_bas4")])
def test_the_same_networks_are_counted_once(space: SearchSpace) -> None:
    groups: dict[Architecture, set[Architecture]] = {}
    for architecture in space.architectures():
        groups.setdefault(space.distinct(architecture), set()).add(architecture)
    assert space.different == len(groups)
    for architecture, group in groups.items():
        same = list(space.same(architecture))
        assert len(same) == len(group)
        assert set(same) == group
    assert set(space.sample(space.different, 3)) == set(groups)


def test_a_sample_is_uniform_and_begins_with_a_smaller_one() -> None:
    wide = space_of("ser_wide")
    assert wide.different == 3905
    assert wide.sample(40, 0)[:12] == wide.sample(12, 0) != wide.sample(12, 1)
    assert len(set(wide.sample(40, 0))) == 40
    counts = Counter(architecture for seed in range(1000) for architecture in ODD.sample(2, seed))
    assert set(counts) <= {ODD.distinct(a) for a in ODD.architectures()}
    expected = 2000 / ODD.different
    statistic = sum((counts[ODD.distinct(a)] - expected) ** 2 / expected for a in ODD.sample(ODD.different, 0))
    assert statistic < chi2.ppf(0.999, ODD.different - 1)
    huge = SearchSpace({f"s{i}": SKIPPED for i in range(60)}, MeanPool)
    assert len(set(huge.sample(5, 0))) == 5, "nothing is enumerated"


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
    outcome = search(
        supernet,
        mine.task.loss,
        data,
        torch.arange(4),
        settings("cpu", {"epochs": "2", "strategy": "gumbel"}),
        0,
        lambda record: {},
    )
    mine.space.check(outcome.architecture)
    x_BTI, mask_BT, _ = data.batch(torch.arange(4))
    assert build(mine.space, outcome.architecture, IN_DIM, DIM, OUTPUTS)(x_BTI, mask_BT).shape == (4, OUTPUTS)


def test_a_file_edited_twice_in_a_second_is_read_again(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("architecture", "shown"),
    [
        ({"layer1": "none", "layer2": "FFN", "layer3": "none", "pool": "mean"}, "FFN > mean"),
        ({"layer1": "none", "layer2": "none", "pool": "mean"}, "no block > mean"),
        ({"layer1": "none", "layer2": "FFN"}, "FFN"),
        ({"stem": "conv", "layer1": "none", "layer2": "MSA"}, "conv > MSA"),
        ({"stem": "none", "layer1": "none"}, "none > no block"),
        ({"layer1": "FFN", "layer2": "MSA"}, "FFN > MSA"),
        ({}, ""),
    ],
)
def test_pages_leave_out_empty_slots(architecture: dict[str, str], shown: str) -> None:
    assert told(architecture) == shown
