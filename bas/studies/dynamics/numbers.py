"""How the embeddings changed, over all rotations: every number of the page and of the figures.

Axes: R rows (a step each, and the last one of every rotation), L hidden states, T rotations, S probes of one spread, N
utterances of all third parts, F acoustic features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from bas.speech.acoustics import FAMILIES
from bas.stats import Metric, Paired, Predictions, Spread, macro_f1, paired, wa
from bas.studies.dynamics.results import (
    Change,
    Checkpoint,
    Cka,
    CkaRows,
    Cut,
    CutOff,
    CutRow,
    EgemapsScores,
    Likeness,
    Measured,
    ProbeRows,
    ProbeScores,
    Refused,
    RidgeRows,
    Rotation,
    RotationRow,
    Spreads,
    StateScores,
    StepRow,
    SvccaRows,
)

LAST = "last"
KINDS, SPLITS = ("linear", "relu"), ("grouped", "published")

Rows = Sequence[Sequence[Checkpoint]]


def tabulate(rotations: Sequence[Rotation]) -> Measured:
    """Every number of the page."""
    steps = sorted({step for rotation in rotations for step in rotation.finetune.steps})
    order: list[int | str] = [*steps, LAST]
    rows = [_having(rotations, step) for step in order]
    first = [of[0] for of in (_having([rotation], 0) for rotation in rotations)]
    return Measured(
        rows=tuple(StepRow(step, len(row)) for step, row in zip(order, rows, strict=True)),
        states=first[0].states,
        classes=len(rotations[0].finetune.outputs),
        rotations=tuple(_fine_tuned(rotation, start) for rotation, start in zip(rotations, first, strict=True)),
        analysis=first[0].settings,
        missing=dict(sum((Counter(c.missing) for c in first), Counter[str]())),
        clipped=sum(c.clipped for c in first),
        cka={name: _cka(rows, name) for name in ("egemaps", *FAMILIES, "start", "text")},
        svcca={name: _svcca(rows, name) for name in ("egemaps", "start")},
        probes={kind: {split: _probes(rows, kind, split) for split in SPLITS} for kind in KINDS},
        ridge=_ridge(rows),
        cut=_cut(rows),
    )


def _having(rotations: Sequence[Rotation], step: int | str) -> list[Checkpoint]:
    wanted = [(rotation, rotation.finetune.steps[-1] if step == LAST else step) for rotation in rotations]
    return [c for rotation, s in wanted for c in rotation.checkpoints if c.step == s]


def _fine_tuned(rotation: Rotation, start: Checkpoint) -> RotationRow:
    losses = [record.valid["loss"] for record in rotation.finetune.records]
    return RotationRow(
        rotation=rotation.rotation,
        utterances=start.utterances,
        speakers=len(set(start.speakers)),
        steps=rotation.finetune.steps,
        epochs=rotation.finetune.epochs,
        stopped=rotation.finetune.stopped,
        valid_loss=(losses[0], min(losses)),
    )


P = TypeVar("P")


@dataclass(frozen=True)
class _Held(Generic[P]):
    """One measurement, by row, of the checkpoints that have it; and why the others do not."""

    rows: list[list[tuple[Checkpoint, P]]]
    why: str

    def stacked(self, value: Callable[[P], Any]) -> list[np.ndarray]:
        """`(T, ...)` of each row; of one that no rotation has, NaN alone."""
        shape = np.shape(value(self.rows[0][0][1]))
        return [
            np.array([value(part) for _, part in row], np.float64) if row else np.full((1, *shape), np.nan)
            for row in self.rows
        ]


def _held(rows: Rows, part: Callable[[Checkpoint], P | Refused]) -> _Held[P] | Refused:
    pairs = [[(c, part(c)) for c in row] for row in rows]
    why = next((of.refused for row in pairs for _, of in row if isinstance(of, Refused)), "")
    kept = [[(c, of) for c, of in row if not isinstance(of, Refused)] for row in pairs]
    return _Held(kept, why) if kept[0] else Refused(why)


def _sd(x_T: np.ndarray) -> np.ndarray:
    """Over the first axis, as `bas.stats.spread` has it."""
    return np.asarray(np.std(x_T, axis=0, ddof=1) if len(x_T) > 1 else 0 * x_T[0])


def _plain(values: np.ndarray) -> Any:
    """Nested tuples, NaN as None."""

    def nested(value: Any) -> Any:
        return tuple(map(nested, value)) if isinstance(value, list) else value

    return nested(np.where(np.isfinite(values), values.astype(object), np.array(None)).tolist())


def _grid(arrays: Iterable[np.ndarray]) -> Any:
    return tuple(_plain(x) for x in arrays)


def _cka(rows: Rows, name: str) -> CkaRows | Refused:
    held = _held(rows, lambda c: c.cka[name])
    if isinstance(held, Refused):
        return held
    likeness = {kind: _likeness(held, kind) for kind in ("debiased", "plain")}
    return CkaRows(rotations=len(held.rows[0]), others=held.why, **likeness)


def _likeness(held: _Held[Cka], kind: str) -> Likeness:
    values = held.stacked(lambda of: getattr(of, kind).value)
    changes_TL = values[-1] - values[0]
    change = Change(_plain(changes_TL.mean(0)), _plain(_sd(changes_TL)), tuple((changes_TL < 0).sum(0).tolist()))
    mean, sd = _grid(x_TL.mean(0) for x_TL in values), _grid(map(_sd, values))
    if getattr(held.rows[0][0][1], kind).p95 is None:
        return Likeness(mean, sd, change)
    p95 = held.stacked(lambda of: getattr(of, kind).p95)
    by_chance = [(x_TL.mean(0) <= y_TL.mean(0)).tolist() for x_TL, y_TL in zip(values, p95, strict=True)]
    return Likeness(mean, sd, change, _grid(x_TL.mean(0) for x_TL in p95), tuple(map(tuple, by_chance)))


def _svcca(rows: Rows, name: str) -> SvccaRows:
    refused = (of.refused for row in rows for c in row for of in c.svcca[name] if of.refused)
    values = [np.array([[of.value for of in c.svcca[name]] for c in row], np.float64) for row in rows]
    return SvccaRows(_grid(x_TL.mean(0) for x_TL in values), next(refused, ""))


def _probes(rows: Rows, kind: str, split: str) -> ProbeRows | Refused:
    held = _held(rows, lambda c: c.probes[kind][split])
    if isinstance(held, Refused):
        return held
    first = held.rows[0]
    on_splits = held.stacked(lambda part: [of.splits.macro_f1 for of in part.states])
    of_initialisations = held.stacked(lambda part: [of.initialisations.macro_f1 for of in part.states])
    egemaps = [part.egemaps for _, part in first]
    against_start = None
    if split == "grouped":
        last = [part for _, part in held.rows[-1]]
        against_start = tuple(
            _paired(
                [c for c, _ in first],
                [_predictions(part.states[state]) for part in last],
                [_predictions(part.states[state]) for _, part in first],
                macro_f1,
            )
            for state in range(len(first[0][1].states))
        )
    return ProbeRows(
        rotations=len(first),
        others=held.why,
        notes=tuple(dict.fromkeys(part.note for _, part in first)),
        states=StateScores(
            _over_probes(of_initialisations),
            _over_probes(on_splits),
            _grid(_sd(x_TLS.mean(2)) for x_TLS in on_splits),
        ),
        egemaps=EgemapsScores(
            Spread.of(np.mean([of.initialisations.macro_f1 for of in egemaps], axis=0)),
            Spread.of(np.mean([of.splits.macro_f1 for of in egemaps], axis=0)),
        ),
        against_start=against_start,
    )


def _over_probes(scores: Sequence[np.ndarray]) -> Spreads:
    """By row and state, over the probes of `(T, L, S)` scores."""
    return Spreads(
        _grid(x_TLS.mean((0, 2)) for x_TLS in scores),
        _grid(_sd(x_TLS.mean(0).T) for x_TLS in scores),
    )


def _predictions(scores: ProbeScores) -> np.ndarray:
    assert scores.splits.predictions is not None, "each utterance is tested once"
    return scores.splits.predictions


def _paired(
    row: Sequence[Checkpoint], a_TSN: Sequence[np.ndarray], b_TSN: Sequence[np.ndarray], metric: Metric
) -> Paired:
    """a against b, over rotations; predictions by rotation, probe and utterance.

    The encoder was fine-tuned once a rotation, and several probes on it show nothing of its luck: whole rotations are
    the units. So also where a and b read one fine-tuned encoder: its luck can help one state more than another. (With
    one speaker a rotation, speakers and rotations are the same.)
    """
    targets_N = np.concatenate([c.targets for c in row])
    speakers_N = np.concatenate([c.speakers for c in row])
    folds_N = np.repeat(np.arange(len(row)), [len(c.targets) for c in row])
    a, b = (Predictions(np.concatenate(x_TSN, axis=1), folds_N, retrained=False) for x_TSN in (a_TSN, b_TSN))
    return paired(targets_N, a, b, speakers_N, metric)


def _ridge(rows: Rows) -> RidgeRows | Refused:
    held = _held(rows, lambda c: c.ridge)
    if isinstance(held, Refused):
        return held
    one = held.rows[0][0][1]
    return RidgeRows(
        rotations=len(held.rows[0]),
        others=held.why,
        notes=tuple(dict.fromkeys(part.note for _, part in held.rows[0])),
        names=one.names,
        families=one.families,
        r2=_grid(x_TLF.mean(0) for x_TLF in held.stacked(lambda part: part.r2)),
    )


def _cut(rows: Rows) -> CutOff:
    last, metrics = rows[-1], ("WA", "UA", "macro_f1")
    own = {m: [np.array([c.cut.own.score(m) for c in row]) for row in rows] for m in metrics}
    whole = [c.cut.own.predictions[-1:] for c in last]

    def refitted(row: Sequence[Checkpoint], metric: str) -> CutRow:
        values_TL = np.array([_refitted(c).score(metric) for c in row])
        return CutRow(_plain(values_TL.mean(0)), _plain(_sd(values_TL)))

    def against_whole(cut_of: Callable[[Checkpoint], Cut], states: int) -> tuple[Paired, ...]:
        return tuple(
            _paired(last, [cut_of(c).predictions[state : state + 1] for c in last], whole, wa)
            for state in range(states)
        )

    return CutOff(
        own={m: Spreads(_grid(x.mean(0) for x in values), _grid(map(_sd, values))) for m, values in own.items()},
        refitted={name: {m: refitted(row, m) for m in metrics} for name, row in (("0", rows[0]), (LAST, last))},
        against_whole={
            "own": (*against_whole(lambda c: c.cut.own, last[0].states - 1), None),
            "refitted": against_whole(_refitted, last[0].states),
        },
    )


def _refitted(checkpoint: Checkpoint) -> Cut:
    assert checkpoint.cut.refitted is not None, "at step 0 and the last it is"
    return checkpoint.cut.refitted
