"""A job of the words study: one input, alone or with text; the classifiers of all states are trained together.

The largest input, the raw frames of all states, decides where features lie (`bas.training.placement`). Where it fits,
the input in training is held in memory or on the GPU, one input at a time and the words beside it. Where it does not,
every batch is read from its store, with the same numbers. The lexical vectors are always in memory.

Axes: B utterances, T units of the longest, N units or words of all utterances end to end, U utterances of the run,
L states, D width of one, E of a lexical vector, W words of one utterance, C = L * D + 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bas.corpora import Word
from bas.features.derive import frame_times, origin, spans
from bas.features.store import FeatureStore
from bas.networks.network import varying
from bas.protocols import Fold
from bas.runs.jobs import checkpoint, keep
from bas.runs.plan import Job, Kind
from bas.runs.results import Tested
from bas.runs.run import OTHER, Run
from bas.runs.session import Session
from bas.speech.words import holder
from bas.studies.words.heads import ALONE, FUSIONS, TEXT, Texts, WordHeads
from bas.studies.words.results import HeadResult, WordsResult
from bas.training.batches import Batch, Data, by_speaker, load
from bas.training.heads import train
from bas.training.loop import outputs, seed_everything
from bas.training.placement import Placement
from bas.util.faults import judging
from bas.util.files import read_record

RAW, INSIDE, WORDS, RANDOM, CENTRE, ATTENTION = INPUTS = ("raw", "inside", "words", "random", "centre", "attention")
FUSED = (RAW, INSIDE, WORDS)
FRAMES = (RAW, INSIDE, ATTENTION)
"""The inputs whose units are frames, which the setting `stride` averages; words are never averaged."""

DERIVED = {
    INSIDE: ("words", "inside"),
    WORDS: ("words", "mean"),
    RANDOM: ("random", "mean"),
    CENTRE: ("words", "centre"),
}
"""The derived store of an input, by segments and pooling. Attention reads the store of `inside`."""

RECORD, LEXICON = "words.json", "lexicon.npz"


@dataclass(frozen=True)
class Record:
    """What the runs of a store share: a file in the folder above theirs, beside the lexical vectors."""

    inputs: Mapping[str, str]  # the folder of each of DERIVED
    words: str  # digest of the words' segments
    random: str  # digest of the random segments
    text_encoder: str
    untrained: bool  # whether the text encoder has random weights

    @classmethod
    def read(cls, folder: Path) -> Record:
        return cls(**read_record(folder / RECORD, OTHER))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_lexicon(folder: Path) -> tuple[np.ndarray, dict[str, int]]:
    """The lexical vectors `(N, E)` of a store's words, and by utterance id the row of its first word.

    Raises UserError where the file is missing or damaged.
    """
    path = folder / LEXICON
    with judging(path, f"damaged; delete {folder / RECORD}: both are made again"), np.load(path) as arrays:
        return arrays["vectors"], dict(zip(arrays["ids"].tolist(), arrays["starts"].tolist(), strict=True))


def made_of(record: Record, vectors_NE: np.ndarray) -> dict[str, str]:
    """What a job's numbers depend on besides its run: digests of the segments and of the lexical vectors."""
    lexical = hashlib.sha256(vectors_NE.tobytes()).hexdigest()[:12]
    return {"words": record.words, "random": record.random, "lexicon": lexical}


def words_job(row: str, fold: int, seed: int) -> Job:
    """row: one of `rows`."""
    return Job(Kind.WORDS, row, fold, seed)


def rows(fused: bool) -> list[str]:
    """Every input alone; if fused, also some inputs with text, as `input+fusion`, and text alone."""
    return [*INPUTS, *([f"{name}+{fusion}" for name in FUSED for fusion in FUSIONS] + [TEXT] if fused else [])]


def parts_of(row: str) -> tuple[str, str]:
    """The input and the fusion of a row."""
    name, _, fusion = row.partition("+")
    return name, TEXT if row == TEXT else fusion or ALONE


@dataclass(frozen=True)
class Placed:
    """The units of an input with the two columns that `WordHeads` reads: the word that holds a unit, its utterance."""

    data: Data
    holder_N: Tensor  # 1 + the index of the word that holds the unit; 0: no word

    @property
    def lengths_U(self) -> Tensor:
        return self.data.lengths_U

    @property
    def device(self) -> torch.device:
        return self.data.device

    def batches(self, members: Iterable[Tensor]) -> Generator[Batch, None, None]:
        """`x_BTC` for each in turn, zeros on padding; see `Data.batches`."""
        batches = list(members)
        with closing(self.data.batches(batches)) as read:
            for members_B, (x_BTD, mask_BT, targets_B) in zip(batches, read, strict=True):
                place_BT2 = torch.zeros(*mask_BT.shape, 2)
                for row_T2, u in zip(place_BT2, members_B.tolist(), strict=True):
                    start, length = int(self.data.starts_U[u]), int(self.data.lengths_U[u])
                    row_T2[:length, 0] = self.holder_N[start : start + length]
                    row_T2[:length, 1] = u
                yield torch.cat([x_BTD, place_BT2.to(x_BTD)], 2), mask_BT, targets_B


class WordsSession(Session):
    """A run of the words study, open in this process. An input is read when `units` first needs it."""

    def __init__(
        self, source: Run | Path, tick: Callable[[], None] = lambda: None, placement: Placement | None = None
    ) -> None:
        super().__init__(source, tick, placement)
        folder = self.run.folder
        record = Record.read(folder.parent)
        self.stores = {name: FeatureStore(path, self.placement.mapped) for name, path in record.inputs.items()}
        self.stores |= {RAW: self.run.store, ATTENTION: self.stores[INSIDE]}
        _, segments = origin(self.stores[WORDS].folder, self.stores[WORDS].info)
        self.words: list[tuple[Word, ...]] = [segments.of[u.id] for u in self.run.utterances]
        vectors_NE, starts = read_lexicon(folder.parent)
        self.made_of = made_of(record, vectors_NE)
        counts_U = torch.tensor([len(words) for words in self.words])
        starts_U = torch.tensor([starts[u.id] for u in self.run.utterances])
        self.texts = Texts(*(x.to(self.device) for x in (torch.from_numpy(vectors_NE), starts_U, counts_U)))
        self._units: dict[str, Placed] = {}

    def units(self, name: str, fold: Fold) -> Placed:
        """An input as the rows of this fold read it; TEXT: units of width 0, one for each word."""
        if name not in self._units:
            if name != WORDS:  # free the old input before reading the new one
                self._units = {kept: units for kept, units in self._units.items() if kept == WORDS}
            self._units[name] = self._placed(name)
        placed = self._units[name]
        if self.run.plan.settings.normalise == "speaker" and name != TEXT:
            speakers = [u.speaker for u in self.run.utterances]
            return replace(placed, data=by_speaker(placed.data, self.members(fold.fit), speakers))
        return placed

    def texts_of(self, fit: Tensor) -> Texts:
        """The lexical vectors, standardised by the known words of these utterances; 0 for unknown words."""
        if self.run.plan.settings.normalise == "none":
            return self.texts
        vectors_NE, known_N = self.texts.vectors_NE, self.texts.vectors_NE.any(1)
        fit_NE = torch.cat([vectors_NE[s : s + n] for s, n in self._spans(fit)])
        fit_NE = fit_NE[fit_NE.any(1)].double()
        if not len(fit_NE):
            return self.texts
        mean_E, size_E = fit_NE.mean(0).float(), fit_NE.square().mean(0).sqrt()
        std_E = varying(fit_NE.std(0, correction=0), size_E).float()
        scale_E = torch.where(std_E > 0, 1 / std_E, 1.0)
        return replace(self.texts, vectors_NE=((vectors_NE - mean_E) * scale_E).where(known_N[:, None], 0.0))

    def _spans(self, members: Tensor) -> list[tuple[int, int]]:
        members = members.to(self.device)
        return list(zip(self.texts.starts_U[members].tolist(), self.texts.counts_U[members].tolist(), strict=True))

    def _placed(self, name: str) -> Placed:
        """Read an input, and find the word that holds each unit."""
        run, stride = self.run, self.run.plan.settings.stride if name in FRAMES else 1
        if name == TEXT:
            counts_U, targets_U = self.texts.counts_U.cpu(), torch.from_numpy(run.targets).to(self.device)
            starts_U, nothing_ND = counts_U.cumsum(0) - counts_U, torch.zeros(int(counts_U.sum()), 0)
            nothing_ND = nothing_ND.to(self.device)
            data = Data(nothing_ND, starts_U, counts_U, targets_U, torch.zeros(len(counts_U), 0))
        else:
            ids, layers = [u.id for u in run.utterances], run.store.info.layers
            data = load(self.stores[name], ids, layers, stride, run.targets, self.placement.where, self.device)
        holders = [self._holders(name, u, stride) for u in range(len(self.words))]
        assert [len(h) for h in holders] == data.lengths_U.tolist(), name
        return Placed(data, torch.from_numpy(np.concatenate(holders)) + 1)

    def _holders(self, name: str, u: int, stride: int) -> np.ndarray:
        """The index of the word that holds each unit; -1: no word."""
        words, id_ = self.words[u], self.run.utterances[u].id
        if name == RANDOM:
            return np.full(len(words), -1)
        if name not in FRAMES:
            return np.arange(len(words))
        times_T = frame_times(self.run.store.num_frames(id_), self.run.store.info.encoder["frame_rate"])
        if name == RAW:
            return holder(times_T[middles(len(times_T), stride)], words)
        times_T = times_T[spans(times_T, words, "inside")[:, 0]]
        times_T = times_T[middles(len(times_T), stride)]
        # Where no word holds a frame's centre, `inside` has the frames nearest to the words.
        nearest_T = np.abs(times_T[:, None] - [(w.start + w.end) / 2 for w in words]).argmin(1)
        holder_T = holder(times_T, words)
        return np.asarray(np.where(holder_T < 0, nearest_T, holder_T))


def middles(frames: int, stride: int) -> np.ndarray:
    """The position of a unit of `stride` averaged frames: that of its middle frame, the earlier of two."""
    starts_N = np.arange(0, frames, stride)
    return np.asarray(starts_N + (np.minimum(stride, frames - starts_N) - 1) // 2)


def run_words(session: WordsSession, job: Job) -> None:
    """Do one job and write its result. Resumes from a checkpoint that a kill left."""
    run, (name, fusion) = session.run, parts_of(job.row)
    parts, settings = run.protocol.folds[job.fold], run.plan.settings
    fit, valid, test = (session.members(ids) for ids in (parts.fit, parts.valid, parts.test))
    placed = session.units(name, parts)
    states = () if fusion == TEXT else run.store.info.layers
    texts = None if fusion == ALONE else session.texts_of(fit)
    seed_everything(job.fold, job.seed, "initial weights")
    heads = WordHeads(states, placed.data.dim, len(run.outputs), fusion, texts, name == ATTENTION)
    if states and settings.normalise != "none":
        # Attention begins as the mean over a word: standardised like the means, it begins as `words` does.
        reference = session.units(WORDS, parts) if name == ATTENTION else placed
        heads.standardise.set(*reference.data.moments(fit))
    trained = train(
        heads,
        *run.losses(settings, fit),
        placed,
        fit,
        valid,
        placed.data.targets_U[valid.to(placed.device)],
        replace(settings, warmup=0),
        (job.fold, job.seed),
        session.tick,
        checkpoint(session, job),
    )
    valid_BHO, test_BHO = (outputs(trained.heads, placed, part) for part in (valid, test))
    by_head = {}
    for h, head in enumerate(trained.heads.names):
        on_valid, on_test = (run.task.predict(out_BHO[:, h]) for out_BHO in (valid_BHO, test_BHO))
        by_head[head] = HeadResult(
            valid={"loss": trained.valid_loss[head], **session.metrics(on_valid, valid)},
            test=Tested(on_test, session.metrics(on_test, test)),
        )
    units = float(placed.lengths_U[fit].float().mean())
    result = WordsResult(fit=len(fit), units=units, seconds=trained.seconds, made_of=session.made_of, heads=by_head)
    keep(session, job, result)
