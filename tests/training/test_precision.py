"""In what precision a training multiplies, chosen once and recorded; and what else is otherwise on a GPU."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from bas.blocks import FFN, MSA, MeanPool, TransformerBlock, attend
from bas.experiment import Experiment
from bas.networks.network import Network
from bas.runs import plan
from bas.runs.choose import gone_on, workers_of
from bas.runs.plan import Plan
from bas.runs.run import Inputs
from bas.training import loop
from bas.training.batches import Data, gathered
from bas.training.loop import Epoch, optimise, outputs, pause, seed_everything
from bas.training.placement import GIB, Placement, place
from bas.training.settings import settings
from bas.util.device import products_of
from bas.util.files import write_json

CPU = torch.device("cpu")
DIM, CLASSES = 16, 3


def made(device: str, **changes: str) -> Plan:
    return Plan("store", (), 0, settings("cpu", changes), (0,), device)


@pytest.mark.parametrize("fastest", ["float32", "bfloat16"])
def test_auto_is_what_is_fastest_when_a_run_begins(monkeypatch: pytest.MonkeyPatch, fastest: str) -> None:
    monkeypatch.setattr(plan, "products_of", lambda device: fastest)
    assert made("cpu").settings.precision == fastest
    for given in ("float32", "bfloat16"):
        assert made("cpu", precision=given).settings.precision == given
    recorded = asdict(made("cpu"))
    monkeypatch.setattr(plan, "products_of", lambda device: "another machine's")
    assert Plan.from_dict(recorded).settings.precision == fastest


@pytest.mark.parametrize(("device", "before"), [("cpu", "float32"), ("cuda", "bfloat16")])
def test_a_run_of_before_the_setting(device: str, before: str) -> None:
    recorded = asdict(made(device, precision="float32"))
    del recorded["settings"]["precision"]
    assert Plan.from_dict(recorded).settings.precision == before


@pytest.mark.parametrize(
    ("can", "fastest"),
    [({"avx2": True}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16")],
)
def test_a_cpu_multiplies_bfloat16_by_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, can: dict[str, bool], fastest: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert products_of(CPU) == fastest


@pytest.mark.parametrize("given", [{}, {"precision": "float32"}])
def test_a_run_is_gone_on_with_in_its_own_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    """By the same command, on a machine that would begin it in another; what is named is what is done."""
    monkeypatch.setattr(plan, "products_of", lambda device: "float32")
    inputs = Inputs(made("cpu"), cast(Any, None), cast(Any, None), ())
    choice = replace(Experiment(), settings=given)
    assert gone_on(choice, tmp_path, inputs) is inputs
    begun = made("cpu", precision="bfloat16")
    write_json(tmp_path / "run.json", {"plan": asdict(begun)})
    expected = given.get("precision", "bfloat16")
    assert gone_on(choice, tmp_path, inputs).plan.settings.precision == expected


def network() -> Network:
    seed_everything("network")
    parts = {"one": TransformerBlock(DIM, 2), "two": MSA(DIM, 2), "three": FFN(DIM), "pool": MeanPool(DIM)}
    return Network(parts, DIM, DIM, CLASSES, 0.0)


def data() -> Data:
    seed_everything("data")
    lengths_U = torch.arange(40) % 7 + 1
    targets_U = torch.arange(40) % CLASSES
    frames_ND = torch.randn(int(lengths_U.sum()), DIM) + targets_U.repeat_interleave(lengths_U)[:, None]
    return Data(frames_ND, lengths_U.cumsum(0) - lengths_U, lengths_U, targets_U, torch.zeros(40, DIM))


def trained(
    precision: str, path: Path | None = None, after: int | None = None, optimiser: str = "adamw"
) -> tuple[Network, list[dict[str, Any]]]:
    """After six epochs; after: raise KeyboardInterrupt then."""
    model, of = network(), settings("cpu", {"precision": precision, "epochs": "6", "optimiser": optimiser})

    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        out: Tensor = model(x_BTD, mask_BT)
        return out

    def record(epoch: Epoch) -> dict[str, Any]:
        if epoch.index == after:
            raise KeyboardInterrupt
        return {"loss": epoch.loss}

    of = replace(of, batch_size=8)
    return model, optimise(model, forward, F.cross_entropy, data(), torch.arange(40), of, 0, record, path)[0]


def test_a_training_in_bfloat16_is_nearly_that_in_float32() -> None:
    (one, exact), (other, rounded) = trained("float32"), trained("bfloat16")
    assert [r["loss"] for r in rounded] == pytest.approx([r["loss"] for r in exact], rel=0.02)
    assert rounded != exact
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    apart = max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert 0 < apart < 0.02


def test_what_is_scored_is_float32_and_no_batch_changes_it() -> None:
    model, _ = trained("bfloat16")
    alone = outputs(model, data(), torch.arange(40), 1)
    torch.testing.assert_close(outputs(model, data(), torch.arange(40)), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_killed_training_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    whole, records = trained("bfloat16", optimiser=optimiser)
    with pytest.raises(KeyboardInterrupt):
        trained("bfloat16", tmp_path / "checkpoint", 3, optimiser)
    resumed, again = trained("bfloat16", tmp_path / "checkpoint", optimiser=optimiser)
    assert again == records
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_checkpoint_that_takes_long_is_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pause(0.0) == pause(0.1) == loop.CHECKPOINT_SECONDS
    assert pause(2.0) == 8 * loop.CHECKPOINT_SECONDS
    assert 2.0 / pause(2.0) <= 0.05


# On a GPU


def test_attention_asks_for_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask has one row, and no kernel is ruled out: those of a GPU that take it never write `(B, H, T, T)`."""
    asked: list[tuple[bool, ...]] = []

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        of = torch.backends.cuda
        asked.append((mask.shape == (2, 1, 1, 5), of.mem_efficient_sdp_enabled(), of.flash_sdp_enabled()))
        return q

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    mask_BT = torch.ones(2, 5, dtype=torch.bool)
    for block in (MSA(16, 2), TransformerBlock(16, 2)):
        block(torch.zeros(2, 5, 16), mask_BT)
    with FakeTensorMode():
        q_BHTK = torch.zeros(2, 4, 5, 8, device="cuda", dtype=torch.bfloat16)
        out = attend(q_BHTK, q_BHTK, q_BHTK, torch.ones(2, 1, 1, 5, dtype=torch.bool, device="cuda"))
        assert out.dtype == torch.bfloat16
    assert asked == [(True, True, True)] * 3


def test_attention_in_bfloat16_is_computed_in_float32_on_a_cpu() -> None:
    seed_everything("attention")
    q_BHTK, mask_B11T = torch.randn(2, 4, 5, 8).bfloat16(), torch.ones(2, 1, 1, 5, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(q_BHTK, q_BHTK, q_BHTK, mask_B11T)
    wide = q_BHTK.float()
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, F.scaled_dot_product_attention(wide, wide, wide))


def test_gathered_frames_are_those_that_are_copied() -> None:
    of, members_B = data(), torch.tensor([5, 0, 13])
    x_BTD, mask_BT, _ = of.batch(members_B)
    assert isinstance(of.frames_ND, Tensor)
    gathered_BTD = gathered(of.frames_ND, of.starts_U[members_B], mask_BT)
    assert torch.equal(gathered_BTD[mask_BT], x_BTD[mask_BT])
    assert not x_BTD[~mask_BT].any()


def test_several_processes_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (workers_of(None, "cuda"), workers_of(3, "cuda"), workers_of(3, "cpu")) == (1, 3, 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * GIB, 40 * GIB))
    monkeypatch.setattr("bas.training.placement.free_memory", lambda: 100 * GIB)
    cuda = torch.device("cuda")
    assert place(5 * GIB, GIB, cuda, 2)[0] == Placement("gpu", 25 * GIB)
    assert place(6 * GIB, GIB, cuda, 2)[0] == Placement("memory", 25 * GIB)
