"""Normalised by speaker: by the training frames of the training speakers alone."""

# mypy: disable-error-code="index,union-attr"

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from refusals import refusal

from bas.corpora import Corpus, Utterance
from bas.protocols import Fold, Protocol
from bas.runs.start import _check_speakers
from bas.tasks import EMOTION, Classification
from bas.training.batches import Data, by_speaker


def talk(speakers: str, seed: int = 0) -> Data:
    """An utterance a letter, of two dimensions that are each speaker's own."""
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(ord(s) % 7, 1 + ord(s) % 3, (int(rng.integers(3, 9)), 2)).astype(np.float32) for s in speakers]
    lengths = torch.tensor([len(b) for b in blocks])
    means = torch.from_numpy(np.stack([b.mean(axis=0) for b in blocks]))
    frames = torch.from_numpy(np.concatenate(blocks))
    return Data(frames, lengths.cumsum(0) - lengths, lengths, torch.zeros(len(speakers)), means)


def seen(data: Data, u: int) -> np.ndarray:
    """The frames of one utterance as a network has them once it has standardised them, in a batch with the longest."""
    mean_D, std_D = data.moments(torch.arange(6))
    x_BTD, mask_BT, _ = data.batch(torch.tensor([u, int(data.lengths_U.argmax())]))
    assert bool((x_BTD[~mask_BT] == 0).all())
    return ((x_BTD[0][mask_BT[0]] - mean_D) / std_D).double().numpy()


def test_by_speaker_is_what_the_hand_computes() -> None:
    """Utterances 0 to 5 train (speakers a, b, c); of 6 to 9, b is known and d and e are not."""
    speakers = "abcabcbdde"
    plain = talk(speakers)
    data = by_speaker(plain, torch.arange(6), list(speakers))
    frames = [x.double().numpy() for x in plain._frames(torch.arange(10))]
    mean, std = {}, {}
    for name in "abc":
        own = np.concatenate([frames[u] for u in range(6) if speakers[u] == name])
        mean[name], std[name] = own.mean(axis=0), own.std(axis=0)
    mean["?"], std["?"] = (np.mean([side[n] for n in "abc"], axis=0) for side in (mean, std))
    for u, name in enumerate("abcabcb???"):
        expected = (frames[u] - mean[name]) / std[name]
        np.testing.assert_allclose(seen(data, u), expected, rtol=1e-4, atol=1e-4)
        # The linear row standardises again: for it the average speaker's scale is as good as any.
        pooled = data.mean_frames(torch.tensor([u]))[0].double().numpy()
        np.testing.assert_allclose((pooled - mean["?"]) / std["?"], expected.mean(axis=0), rtol=1e-4, atol=1e-4)
    unknown = torch.tensor([7, 8, 9])  # as recorded, bit for bit: what a saved network takes later
    assert torch.equal(data.batch(unknown)[0], plain.batch(unknown)[0])
    assert torch.equal(data.mean_frames(unknown), plain.means_UD[unknown])


def test_no_frame_outside_fit_enters_a_statistic() -> None:
    speakers = "abcabcbdde"
    plain = talk(speakers)
    spoilt = replace(plain, frames_ND=plain.frames_ND.clone())
    spoilt.frames_ND[int(plain.starts_U[6]) :] = torch.nan
    one, other = (by_speaker(d, torch.arange(6), list(speakers)) for d in (plain, spoilt))
    assert torch.equal(one.moved.scale_GD, other.moved.scale_GD)
    assert torch.equal(one.moved.offset_GD, other.moved.offset_GD)
    assert bool(one.moved.offset_GD.isfinite().all())
    assert all(torch.equal(p, q) for p, q in zip(one.batch(torch.arange(6)), other.batch(torch.arange(6)), strict=True))


def test_what_a_speaker_never_changes_is_only_shifted() -> None:
    plain = talk("aabb")
    plain.frames_ND[: int(plain.starts_U[2]), 1] = 4.0
    data = by_speaker(plain, torch.arange(4), list("aabb"))
    assert bool(data.batch(torch.arange(4))[0].isfinite().all())
    mean_D = data.moments(torch.tensor([0, 1]))[0]
    torch.testing.assert_close(mean_D, data.moments(torch.tensor([2, 3]))[0], rtol=1e-4, atol=1e-4)


def test_speakers_must_be_known_and_not_what_is_asked() -> None:
    people = tuple(Utterance(f"u{i}", Path("x.wav"), label="ab"[i % 2], speaker=s) for i, s in enumerate(["p", None]))
    corpus = Corpus("few", people, "own", "speaker")
    for fit, named in ((("u0",), None), (("u0", "u1"), "u1")):
        protocol = Protocol("few", "few", "emotion", "own", 0, (Fold(fit, ("u0",), ("u1",)),), "speaker")
        if named is None:
            _check_speakers(corpus, EMOTION, protocol)
        else:
            message = refusal(_check_speakers, corpus, EMOTION, protocol)
            assert named in message
            assert "no speaker" in message
            assert "normalise=speaker" in message
        who = Classification(label="speaker", disjoint=("text",), protocol="text:3", name="who")
        assert "who predicts the speaker" in refusal(_check_speakers, corpus, who, protocol)
