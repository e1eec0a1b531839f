"""The words study's classifiers: plain layers on one state each, blind to padding, to company and to each other."""

# mypy: disable-error-code="arg-type,index,union-attr"

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bas.studies.words.heads import (
    ALONE,
    CONCATENATED,
    FIRST,
    FUSIONS,
    SECOND,
    SPEECH_ASKS,
    TEXT,
    TEXT_ASKS,
    Texts,
    WordHeads,
)
from bas.training.heads import Watched

STATES, DIM, WIDTH, CLASSES = (0, 2, 5), 6, 5, 3
L = len(STATES)
UNITS, COUNTS = (4, 7, 1, 6), (2, 3, 1, 4)
KINDS = [(fusion, False) for fusion in (ALONE, *FUSIONS, TEXT)] + [(ALONE, True), (SPEECH_ASKS, True)]
each = pytest.mark.parametrize(("fusion", "attention"), KINDS)


def texts() -> Texts:
    counts_U = torch.tensor(COUNTS)
    vectors_NE = torch.randn(sum(COUNTS), WIDTH, generator=torch.Generator().manual_seed(4))
    return Texts(vectors_NE, counts_U.cumsum(0) - counts_U, counts_U)


def heads(fusion: str, attention: bool = False) -> WordHeads:
    """No weight and no statistic is what it begins as."""
    torch.manual_seed(0)
    states = () if fusion == TEXT else STATES
    made = WordHeads(states, DIM, CLASSES, fusion, None if fusion == ALONE else texts(), attention)
    for p in made.parameters():
        nn.init.normal_(p, std=0.4)
    if states:
        made.standardise.set(torch.randn(L * DIM), torch.rand(L * DIM) + 0.5)
    return made.eval()


def batch() -> tuple[Tensor, Tensor]:
    """Units with the word that holds each, the first of a longer one none; utterances in another order than `texts`."""
    generator = torch.Generator().manual_seed(1)
    x_BTC = torch.randn(len(UNITS), max(UNITS), L * DIM + 2, generator=generator)
    mask_BT = torch.arange(max(UNITS)) < torch.tensor(UNITS)[:, None]
    for b, u in enumerate((2, 0, 3, 1)):
        length, count = UNITS[b], COUNTS[u]
        x_BTC[b, :length, -2] = (torch.arange(length) % (count + (length > count))).flip(0) + (length <= count)
        x_BTC[b, :, -1] = u
    return x_BTC * mask_BT[..., None], mask_BT


def layer(stacked: nn.Module, h: int) -> Callable[[Tensor], Tensor]:
    weight_DF, bias_F = stacked.weight_IDF[h], stacked.bias_I1F[h, 0]
    return lambda x_D: x_D @ weight_DF + bias_F


def expected(made: WordHeads, x_TC: Tensor, h: int) -> Tensor:
    """One utterance and one head, written out unit by unit."""
    holder_T, u = x_TC[:, -2].int().tolist(), int(x_TC[0, -1])
    x_TD = x_TC[:, :-2]
    units: list[Tensor] = []
    if made.fusion != TEXT:
        standard_TD = (x_TD - made.standardise.mean_I) * made.standardise.scale_I
        units = list(standard_TD[:, h * DIM : (h + 1) * DIM])
    if made.query_LD1 is not None:
        pooled = []
        for w in sorted(set(holder_T) - {0}):
            mine = torch.stack([unit for unit, held in zip(units, holder_T, strict=True) if held == w])
            weight = (mine @ made.query_LD1[h, :, 0] / DIM**0.5).exp()
            pooled.append((weight[:, None] * mine).sum(0) / weight.sum())
        units, holder_T = pooled, sorted(set(holder_T) - {0})
    speech = [layer(made.acoustic, h)(unit) for unit in units] if units else []
    words: list[Tensor] = []
    if made.texts is not None:
        start, count = int(made.texts.starts_U[u]), int(made.texts.counts_U[u])
        of, words = layer(made.lexical, h), list(made.texts.vectors_NE[start : start + count])
        if made.fusion == CONCATENATED:
            known = [words[held - 1] if held else torch.zeros(WIDTH) for held in holder_T]
            return classified(made, h, [a + of(word) for a, word in zip(speech, known, strict=True)])
        words = [of(word) for word in words]
    if made.fusion == ALONE:
        return classified(made, h, speech)
    if made.fusion == TEXT:
        return classified(made, h, words)
    queries, keys = (speech, words) if made.fusion == SPEECH_ASKS else (words, speech)
    attended = []
    for query in queries:
        weight = torch.stack([query @ key / FIRST**0.5 for key in keys]).softmax(0)
        attended.append(query + sum(w * key for w, key in zip(weight, keys, strict=True)))
    return classified(made, h, attended)


def classified(made: WordHeads, h: int, units: list[Tensor]) -> Tensor:
    hidden = [layer(made.second, h)(unit.relu()).relu() for unit in units]
    return layer(made.last, h)(torch.stack(hidden).mean(0))


@torch.no_grad()
@each
def test_each_head_is_plain_layers_on_its_own_state(fusion: str, attention: bool) -> None:
    made = heads(fusion, attention)
    assert made.names == (["text"] if fusion == TEXT else [f"state {s}" for s in STATES])
    assert made.second.weight_IDF.shape[1:] == (FIRST, SECOND)
    x_BTC, mask_BT = batch()
    out_BHO = made(x_BTC, mask_BT)
    assert out_BHO.shape == (len(UNITS), len(made.names), CLASSES)
    for b in range(len(UNITS)):
        for h in range(len(made.names)):
            alone = expected(made, x_BTC[b, mask_BT[b]], h)
            torch.testing.assert_close(out_BHO[b, h], alone, rtol=1e-4, atol=1e-4)
    assert float(out_BHO.std(0).min()) > 1e-3, "utterances differ"


@torch.no_grad()
@each
def test_padding_and_company_change_nothing(fusion: str, attention: bool) -> None:
    made = heads(fusion, attention)
    x_BTC, mask_BT = batch()
    out_BHO = made(x_BTC, mask_BT)
    near = {"rtol": 1e-4, "atol": 1e-4}
    garbage_BTC = torch.where(mask_BT[..., None], x_BTC, 50.0)
    garbage_BTC[..., -2:] = x_BTC[..., -2:]  # places are none on padding
    torch.testing.assert_close(made(garbage_BTC, mask_BT), out_BHO, **near)
    longer = F.pad(x_BTC, (0, 0, 0, 5)), F.pad(mask_BT, (0, 5))
    torch.testing.assert_close(made(*longer), out_BHO, **near)
    for b in range(len(UNITS)):
        alone_1HO = made(x_BTC[b : b + 1, mask_BT[b]], mask_BT[b : b + 1, mask_BT[b]])
        torch.testing.assert_close(alone_1HO[0], out_BHO[b], **near)
    order = torch.tensor([2, 3, 1, 0])
    torch.testing.assert_close(made(x_BTC[order], mask_BT[order]), out_BHO[order], **near)


@each
def test_a_head_learns_what_it_would_alone(fusion: str, attention: bool) -> None:
    made = heads(fusion, attention)
    x_BTC, mask_BT = batch()

    def gradients(of: list[int]) -> list[Tensor]:
        made.zero_grad()
        out_BHO = made(x_BTC, mask_BT)
        sum(F.cross_entropy(out_BHO[:, h], torch.tensor([0, 2, 1, 1])) for h in of).backward()
        return [p.grad.clone() for p in made.parameters()]

    everyone = list(range(len(made.names)))
    together = gradients(everyone)
    for h in everyone:
        for own, all_ in zip(gradients([h]), together, strict=True):
            torch.testing.assert_close(own[h], all_[h])
            assert own[h].any(), "every weight learns"
            assert not own[[g for g in everyone if g != h]].any()


@torch.no_grad()
def test_attention_begins_as_the_mean_over_a_word() -> None:
    made = heads(ALONE, True)
    assert made.query_LD1 is not None
    fresh = WordHeads(STATES, DIM, CLASSES, ALONE, None, True)
    assert not fresh.query_LD1.any()
    made.query_LD1.zero_()
    x_BTC, mask_BT = batch()
    plain = copy.deepcopy(made)
    plain.query_LD1 = None
    for b in range(len(UNITS)):
        x_TC = x_BTC[b, mask_BT[b]]
        held = [int(w) for w in x_TC[:, -2].unique() if w]
        means_WC = torch.stack([x_TC[x_TC[:, -2] == w].mean(0) for w in held])
        out_1HO = plain(means_WC[None], torch.ones(1, len(held), dtype=torch.bool))
        torch.testing.assert_close(made(x_BTC, mask_BT)[b], out_1HO[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_word_without_a_frame_is_not_there() -> None:
    made = heads(ALONE, True)
    x_BTC, mask_BT = batch()
    x_BTC[1, :, -2] = torch.tensor([1, 1, 3, 3, 3, 0, 0])
    renamed = x_BTC.clone()
    renamed[1, :, -2] = torch.tensor([1, 1, 2, 2, 2, 0, 0])
    torch.testing.assert_close(made(x_BTC, mask_BT), made(renamed, mask_BT))


@torch.no_grad()
@pytest.mark.parametrize("fusion", [CONCATENATED, SPEECH_ASKS, TEXT_ASKS, TEXT])
def test_text_is_that_of_the_utterance(fusion: str) -> None:
    """Other words of one utterance change its outputs and no other's; a unit outside words hears its own none."""
    made = heads(fusion)
    assert made.texts is not None
    x_BTC, mask_BT = batch()
    before_BHO = made(x_BTC, mask_BT)
    made.texts.vectors_NE[:2] += 1.0  # utterance 0, which is the second of the batch
    changed_B = (made(x_BTC, mask_BT) != before_BHO).flatten(1).any(1)
    assert changed_B.tolist() == [False, True, False, False]


@torch.no_grad()
@each
def test_each_head_keeps_its_own_best(fusion: str, attention: bool) -> None:
    watched = Watched(heads(fusion, attention))
    x_BTC, mask_BT = batch()
    count = len(watched.heads.names)
    generator = torch.Generator().manual_seed(3)
    scores_EH = torch.stack([torch.randperm(5, generator=generator).float() for _ in range(count)], 1)
    outs = []
    for score_H in scores_EH:
        for p in watched.heads.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
        outs.append(watched(x_BTC, mask_BT))
        watched.keep(score_H)
    kept = watched.best(x_BTC, mask_BT)
    best_H = scores_EH.argmax(0).tolist()
    assert count == 1 or len(set(best_H)) > 1
    for h, epoch in enumerate(best_H):
        torch.testing.assert_close(kept[:, h], outs[epoch][:, h], rtol=1e-3, atol=1e-2)
    assert watched.best.texts is watched.heads.texts, "the vectors are held once"
