"""One layer's features against plain loops, and the classification task that batches are made for."""

# mypy: disable-error-code="arg-type,index,union-attr"

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from bas.corpora import Utterance
from bas.errors import UserError
from bas.tasks import EMOTION, Classification
from bas.training.batches import CPU, MOVED, Data, average, load, scoring_batches, training_batches

DIM = 3


class FakeStore:
    """As much of a FeatureStore as `load` uses: `(T, D)` float16 by id, layer l being l times layer 1."""

    def __init__(self, lengths: list[int]) -> None:
        rng = np.random.default_rng(0)
        self.folder = Path("features/fake")
        self.info = SimpleNamespace(dim=DIM, dtype="float16", frame_bytes=2 * DIM)
        self.states = {f"u{i}": rng.normal(3, 2, (n, DIM)).astype(np.float16) for i, n in enumerate(lengths)}

    def num_frames(self, utterance_id: str) -> int:
        return len(self.states[utterance_id])

    def gather(self, ids: list[str], layers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        blocks = [self.states[i] for i in ids]
        return np.stack([layer * np.concatenate(blocks) for layer in layers]), np.array([len(b) for b in blocks])


def load_from(store: FakeStore, ids: list[str], stride: int = 1, layer: int = 1, where: str = "memory") -> Data:
    return load(store, ids, [layer], stride, np.arange(len(ids)), where, CPU)


def loaded(lengths: list[int], stride: int = 1, where: str = "memory") -> tuple[FakeStore, Data]:
    store = FakeStore(lengths)
    return store, load_from(store, list(store.states), stride, where=where)


def frames(data: Data, u: int) -> np.ndarray:
    start, length = int(data.starts_U[u]), int(data.lengths_U[u])
    return data.frames_ND[start : start + length].numpy()


def flat(chunks: list[torch.Tensor]) -> list[int]:
    return [int(m) for chunk in chunks for m in chunk]


# --- load ---


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 12))
def test_stride_averages_like_a_plain_loop(lengths: Any, stride: int) -> None:
    store, data = loaded(lengths, stride)
    assert data.frames_ND.dtype == torch.float16
    assert data.dim == DIM
    for u, x_TD in enumerate(store.states.values()):
        expected = [x_TD[t : t + stride].astype(np.float64).mean(axis=0) for t in range(0, len(x_TD), stride)]
        assert frames(data, u).shape == (len(expected), DIM)
        np.testing.assert_allclose(frames(data, u), expected, rtol=2e-3, atol=2e-3)


def test_a_short_last_group_is_the_mean_of_what_it_has() -> None:
    store, data = loaded([5], stride=4)
    store.states["u0"][:] = np.array([0, 0, 0, 4, 7])[:, None]
    data = load_from(store, ["u0"], 4)
    assert frames(data, 0)[:, 0].tolist() == [1.0, 7.0]


def test_stride_one_keeps_every_bit_in_the_order_asked_for() -> None:
    store = FakeStore([4, 1, 9])
    data = load(store, ["u2", "u0"], [2], 1, np.array([7, 8]), "memory", CPU)
    for u, name in enumerate(["u2", "u0"]):
        assert np.array_equal(frames(data, u), 2 * store.states[name])
    assert data.targets_U.tolist() == [7, 8]
    assert len(data.frames_ND) == 13


@pytest.mark.parametrize("stride", [1, 4, 100])
def test_means_are_of_all_frames_whatever_the_stride(stride: int) -> None:
    """With a short last group the mean of the averaged frames would be another."""
    store, data = loaded([9, 1, 30], stride)
    expected = [x_TD.astype(np.float64).mean(axis=0) for x_TD in store.states.values()]
    assert data.means_UD.dtype == torch.float32
    np.testing.assert_allclose(data.means_UD, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("stride", [1, 2, 3, 8])
def test_averages_are_bit_for_bit_those_of_earlier_runs(dtype: Any, stride: int) -> None:
    rng = np.random.default_rng(stride)
    for length in (1, 2, 7, 8, 9, 63, 64, 301):
        x_TD = (rng.normal(3, 2, (length, 40)) * 10 ** rng.uniform(-3, 2, (1, 40))).astype(dtype)
        edges = np.arange(0, length, stride)
        sums = np.add.reduceat(x_TD.astype(np.float32), edges, axis=0)
        expected = (sums / np.diff(np.append(edges, length))[:, None]).astype(dtype)
        averaged = average(x_TD, stride)
        assert averaged.numpy().dtype == dtype
        assert np.array_equal(averaged.numpy(), expected)


# --- one batch ---


def test_batch_masks_and_pads_with_zeros() -> None:
    _, data = loaded([2, 7, 1, 4])
    members = torch.tensor([3, 0, 2])
    x_BTD, mask_BT, targets_B = data.batch(members)
    assert x_BTD.dtype == torch.float32
    assert x_BTD.shape == (3, 4, DIM)
    assert targets_B.tolist() == [3, 0, 2]
    for b, u in enumerate(members.tolist()):
        length = int(data.lengths_U[u])
        assert mask_BT[b].tolist() == [t < length for t in range(4)]
        assert np.array_equal(x_BTD[b, :length].numpy(), frames(data, u).astype(np.float32))
        assert bool((x_BTD[b, length:] == 0).all())


def test_padding_holds_no_neighbour_even_if_that_is_not_finite() -> None:
    """Behind a short utterance stand the next one's frames: neither they nor a NaN among them may come through."""
    _, data = loaded([1, 5, 3])
    data.frames_ND[6:] = torch.nan
    x_BTD, _, _ = data.batch(torch.tensor([0, 1]))
    assert bool(torch.isfinite(x_BTD).all())
    assert bool((x_BTD[0, 1:] == 0).all())
    last, _, _ = data.batch(torch.tensor([2, 1]))  # padding would reach beyond the end of all frames
    assert bool((last[0, 3:] == 0).all())


# --- moments ---


def test_moments_are_of_the_members_alone() -> None:
    _, data = loaded([3, 50, 7, 20], stride=2)
    members = [2, 0]
    expected = np.concatenate([frames(data, u) for u in members]).astype(np.float64)
    data.frames_ND[int(data.starts_U[1]) : int(data.starts_U[2])] = 1000.0
    data.frames_ND[int(data.starts_U[3]) :] = torch.nan
    mean_D, deviation_D = data.moments(torch.tensor(members))
    assert mean_D.dtype == deviation_D.dtype == torch.float32
    np.testing.assert_allclose(mean_D, expected.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(deviation_D, expected.std(axis=0), rtol=1e-5)


def test_moments_of_large_values_and_of_a_constant() -> None:
    _, data = loaded([2000, 2000])
    data.frames_ND[:] += 500
    mean_D, deviation_D = data.moments(torch.tensor([0, 1]))
    expected = data.frames_ND.double().numpy()
    np.testing.assert_allclose(mean_D, expected.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(deviation_D, expected.std(axis=0), rtol=1e-5)
    data.frames_ND[:] = 0.1
    assert bool((data.moments(torch.tensor([0, 1]))[1] < 1e-6).all())


# --- epochs ---


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 9), st.integers(0, 5))
def test_an_epoch_holds_each_member_once(count: int, size: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 9, count + 5).tolist()
    _, data = loaded(lengths)
    members = torch.randperm(count + 5, generator=generator(seed))[:count]
    epoch = training_batches(data, members, size, generator(seed))
    assert sorted(flat(epoch)) == sorted(members.tolist())
    sizes = [len(batch) for batch in epoch]
    assert max(sizes) - min(sizes) <= 1, "utterances count alike"
    if size > 1 and count > 1:
        assert min(sizes) > 1, "no batch of one"
    assert max(sizes) <= max(size, 3)
    assert len(sizes) == max(1, min(-(-count // size), count // min(2, size))), "as many as if each had that size"


def test_an_epoch_depends_on_the_generator_alone() -> None:
    _, data = loaded(np.random.default_rng(0).integers(1, 9, 40).tolist())
    members = torch.arange(40)
    torch.manual_seed(1)
    first = flat(training_batches(data, members, 4, generator(0)))
    torch.manual_seed(2)
    assert flat(training_batches(data, members, 4, generator(0))) == first
    assert flat(training_batches(data, members, 4, generator(1))) != first


def test_epochs_differ_in_order_and_in_company() -> None:
    _, data = loaded(np.random.default_rng(0).integers(1, 9, 40).tolist())
    one = generator(0)
    epochs = [training_batches(data, torch.arange(40), 4, one) for _ in range(5)]
    assert len({tuple(flat(epoch)) for epoch in epochs}) == 5
    assert len({frozenset(frozenset(batch.tolist()) for batch in epoch) for epoch in epochs}) == 5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 9), st.integers(0, 5))
def test_none_moves_farther_than_it_may(count: int, size: int, seed: int) -> None:
    places_U = torch.randperm(count, generator=generator(seed))
    none_U = torch.zeros(count)
    data = Data(torch.zeros(0, DIM), none_U, places_U + 1, none_U, torch.zeros(count, DIM))
    for batch in training_batches(data, torch.arange(count), size, generator(seed)):
        spread = int(places_U[batch].max() - places_U[batch].min())
        assert spread <= len(batch) - 1 + 2 * MOVED * size


@pytest.mark.parametrize(("count", "size", "least"), [(430, 32, 0.5), (1200, 16, 0.75)])
def test_company_changes_where_frames_are_averaged_into_few(count: int, size: int, least: float) -> None:
    """Many have one length then, so that sorted lengths and cuts that stay would be the same batches each time."""
    lengths = torch.from_numpy(np.random.default_rng(0).gamma(8, 2.2, count)).long() + 5
    none_U = torch.zeros(count)
    data = Data(torch.zeros(0, DIM), none_U, lengths, none_U, torch.zeros(count, DIM))
    one, kept = generator(0), []
    before: torch.Tensor | None = None
    for _ in range(12):
        batch_U = torch.empty(count, dtype=torch.long)
        for number, batch in enumerate(training_batches(data, torch.arange(count), size, one)):
            batch_U[batch] = number
        together = (batch_U[:, None] == batch_U).triu(1)
        if before is not None:
            kept.append(float((together & before).sum() / before.sum()))
        before = together
    assert np.mean(kept) < least


def test_there_is_hardly_any_padding_in_a_large_corpus() -> None:
    """Lengths like IEMOCAP's, at 50 frames a second."""
    chance = np.random.default_rng(0)
    lengths = np.sort((50 * np.clip(chance.gamma(2.1, 4.5 / 2.1, 4400), 0.6, 34.0)).astype(np.int64))
    none_U = torch.zeros(4400)
    data = Data(torch.zeros(0, DIM), none_U, torch.from_numpy(lengths), none_U, torch.zeros(4400, DIM))
    epoch = training_batches(data, torch.arange(4400), 32, generator(0))
    computed = sum(len(batch) * int(data.lengths_U[batch].max()) for batch in epoch)
    assert 1 - lengths.sum() / computed < 0.03


def test_company_changes_where_no_two_are_equally_long() -> None:
    lengths = torch.arange(200, 600)
    data = Data(torch.zeros(0, DIM), torch.zeros(400), lengths, torch.zeros(400), torch.zeros(400, DIM))
    one = generator(0)
    epochs = [training_batches(data, torch.arange(400), 16, one) for _ in range(8)]
    with_first = [next(set(batch.tolist()) for batch in epoch if 200 in batch.tolist()) for epoch in epochs]
    assert len(set.intersection(*with_first)) < min(map(len, with_first)) / 2


def test_like_lengths_stand_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 256).tolist()
    data = Data(torch.zeros(0, DIM), torch.zeros(256), torch.tensor(lengths), torch.zeros(256), torch.zeros(256, DIM))
    epoch = training_batches(data, torch.arange(256), 32, generator(0))
    computed = sum(len(batch) * int(data.lengths_U[batch].max()) for batch in epoch)
    assert computed < 1.2 * sum(lengths)
    in_order = [int(data.lengths_U[batch].max()) for batch in epoch]
    assert in_order != sorted(in_order)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9))
def test_scoring_batches_map_back(count: int, size: int) -> None:
    _, data = loaded(np.random.default_rng(count).integers(1, 9, count + 3).tolist())
    members = torch.randperm(count + 3, generator=generator(size))[:count]
    restored = torch.full((count,), -1)
    seen = []
    for positions, batch in scoring_batches(data, members, size):
        assert 0 < len(batch) <= size
        assert torch.equal(members[positions], batch)
        restored[positions] = batch
        seen.append(positions)
    assert torch.equal(restored, members)
    assert sorted(flat(seen)) == list(range(count))
    assert torch.equal(
        torch.cat([members[p] for p in seen])[torch.cat(seen).argsort()], members
    )  # as bas.training.loop does


# --- the task ---


def people(*rows: tuple[str, str]) -> list[Utterance]:
    return [Utterance(f"u{i}", Path("none.wav"), label=label, speaker=s) for i, (label, s) in enumerate(rows)]


def test_outputs_are_the_sorted_classes() -> None:
    utterances = people(("sad", "z"), ("angry", "y"), ("sad", "x"), ("happy", "y"))
    assert EMOTION.outputs(utterances) == ("angry", "happy", "sad")
    assert EMOTION.targets(utterances, EMOTION.outputs(utterances)).tolist() == [2, 0, 2, 1]
    who = Classification(label="speaker", disjoint=("text",))
    assert who.outputs(utterances) == ("x", "y", "z")
    targets = who.targets(utterances[1:], who.outputs(utterances))
    assert targets.tolist() == [1, 0, 1]
    assert targets.dtype == np.int64


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        EMOTION.outputs(people(("sad\n", "a"), ("sad\n", "b")))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "'sad\\n'" in message
    assert "emotion" in message
    assert "label" in message


def test_loss_is_the_mean_cross_entropy() -> None:
    outputs_BO = torch.randn(6, 4, generator=generator(0), requires_grad=True)
    targets_B = torch.tensor([0, 3, 1, 1, 2, 0])
    loss = EMOTION.loss(outputs_BO, targets_B)
    x_BO = outputs_BO.detach().double().numpy()
    by_hand = np.log(np.exp(x_BO).sum(axis=1)) - x_BO[np.arange(6), targets_B.numpy()]
    assert loss.shape == ()
    assert float(loss.detach()) == pytest.approx(by_hand.mean(), rel=1e-5)
    loss.backward()
    assert outputs_BO.grad is not None


def test_predictions_fit_the_metrics() -> None:
    outputs_BO = torch.tensor([[0.1, 0.9, 0.0], [2.0, -1.0, 1.9], [0.0, 0.0, 5.0]])
    predictions = EMOTION.predict(outputs_BO)
    assert predictions.tolist() == [1, 0, 2]
    targets = np.array([1, 2, 2])
    assert next(iter(EMOTION.metrics(()))) == "WA"
    assert EMOTION.metrics(())["WA"](targets, predictions) == pytest.approx(accuracy_score(targets, predictions))
    assert all(0 < metric(targets, predictions) < 1 for metric in EMOTION.metrics(()).values())


def test_linear_learns_what_is_linear() -> None:
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], 20)
    x_UD = np.eye(3)[targets] + rng.normal(0, 0.1, (60, 3))
    strong, weak = (EMOTION.linears["logistic regression"](s).fit(x_UD, targets) for s in (1.0, 0.001))
    assert strong.predict(x_UD).tolist() == targets.tolist()
    assert np.abs(strong.coef_).sum() > 10 * np.abs(weak.coef_).sum()
