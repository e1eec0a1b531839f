"""How do listeners hear it? The ablation of arXiv 2308.14359, encoder x attention, and what the paper leaves open.

Every store trains the baselines of a space (with and without attention, one network for all emotions or one for each)
and the linear rows. Each other store is compared with the first: another encoder, or recordings padded with silence
(`bas extract --pad-audio`). The first store is also trained with metadata added to its frames. The weights of attention
are exported and correlated with loudness, pitch and time. Beside all stands the challenge's baseline, of recordings
alone. This study searches nothing; `bas compare` does.

Each store has a folder, and so has the first with metadata; every folder is a run like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from bas.errors import UserError
from bas.features import metadata
from bas.features.store import FeatureStore, StoreInfo
from bas.protocols import Protocol
from bas.report.notes import announce_study
from bas.report.results import write_results
from bas.runs.plan import ALL, BEST, Job, Kind
from bas.runs.results import ceiling, pooled, tested
from bas.runs.run import Inputs, Run
from bas.runs.session import place_features
from bas.runs.start import start
from bas.runs.workers import Workers
from bas.speech import audio
from bas.speech.acoustics import Contours, contours, opensmile_version
from bas.studies.shares import acoustic, page
from bas.studies.shares.attention import Attention, SharesSession, export
from bas.studies.shares.contours import correlate, examples, heard
from bas.studies.shares.numbers import Looked, Predicted, pairs_of, row_of, rows_of, tabulate
from bas.studies.shares.results import ACOUSTIC, Pairs, ShareStudy, WithMetadata
from bas.util.files import write_text
from bas.util.progress import bar

CONTOURS = "contours.npz"


@dataclass(frozen=True)
class StoreChoice:
    """One store: its inputs, whose plan names its layer, and its protocol."""

    name: str  # of the store's folder within the study's
    inputs: Inputs
    protocol: Protocol

    @property
    def info(self) -> StoreInfo:
        return self.inputs.store.info


def carry_out(
    folder: Path,
    choices: Sequence[StoreChoice],
    fields: Sequence[str],
    workers: int,
    console: Console,
    memory: float | None = None,
) -> ShareStudy:
    """Train what is not trained yet; write and show the report. The caller holds the folder's lock.

    choices: stores of the same utterances; the others are compared with the first. fields: of `metadata.FIELDS`, with
    which the first store is also trained; empty: no such run. memory: see the study `compare`.
    Raises UserError for a task that predicts no shares, stores of different utterances or recordings, metadata that can
    tell a network nothing, a space without a pair that differs in attention alone, and for what `start` refuses.
    """
    # All refusals come before hours of training.
    version = opensmile_version()
    for choice in choices:
        task = choice.inputs.task
        if task.label != "shares":
            reason = f"predicts {task.label}, not shares of listeners"
            remedy = "name a space whose task is Shares, such as --space emotion_share"
            raise UserError(f"task {task.name}: {reason}; {remedy}")
        _check_alike(choices[0], choice)
    if fields:
        _check_fields(choices[0], fields)
    runs = [start(folder / choice.name, choice.inputs, choice.protocol) for choice in choices]
    pairs = _pairs(runs[0])
    more = [_with_metadata(folder, choices[0], fields, console)] if fields else []
    with Workers(workers, console) as pool:
        for run in (*runs, *more):
            extra = f" with {run.store.info.derived.split()[1]}" if run.store.info.derived else ""
            announce_study(run, run.folder, f"layer {run.plan.layer}{extra}", console)
            _train(run, pool, memory)
        regressed = [acoustic.carry_out(runs[0], pool)]
    contour = _contours(runs[0], console)
    predicted, of_audio = [Predicted.by(run) for run in runs], pooled(regressed)
    first = predicted[0]
    results = ShareStudy(
        run=folder.name,
        pairs=pairs,
        metadata=_metadata(Predicted.by(more[0]), first, fields) if more else None,
        ceiling=ceiling(runs[0]),
        recordings={ACOUSTIC: row_of(runs[0], regressed, of_audio)},
        opensmile=version,
        stores=tuple(
            tabulate(of, first, of_audio, pairs, _look(of.run, export(of.run, pairs.attentive), contour))
            for of in predicted
        ),
    )
    write_results(folder, results)
    write_text(folder / "table.md", page.markdown(results))
    page.draw(folder, results, console)
    page.show(results, console)
    return results


def _check_alike(first: StoreChoice, other: StoreChoice) -> None:
    """Raise UserError unless two stores have the same utterances, from the same recordings."""
    a, b = first.info, other.info
    where = f"stores {first.name} and {other.name}"
    if (a.corpus, a.root) != (b.corpus, b.root):
        raise UserError(f"{where}: of {a.corpus} {a.root} and of {b.corpus} {b.root}; study one corpus at a time")
    first_ids, other_ids = (
        {i for fold in choice.protocol.folds for ids in fold.parts().values() for i in ids} for choice in (first, other)
    )
    if differ := first_ids ^ other_ids:
        reason = f"{len(differ)} utterances are in one of them alone, {min(differ)} the first"
        raise UserError(f"{where}: {reason}; make both of the same with `bas features subset --ids`")
    assert first.protocol.hash == other.protocol.hash, "one rule and seed make the same split of the same utterances"
    for id_ in sorted(first_ids):
        if a.recordings[id_][0] != b.recordings[id_][0]:
            raise UserError(f"{where}: extracted from other recordings of {id_}; extract one of them again")


def _check_fields(choice: StoreChoice, fields: Sequence[str]) -> None:
    """Raise UserError for a field that can tell a network nothing about the test part of some fold."""
    info, normalise = choice.info, choice.inputs.plan.settings.normalise
    if normalise == "speaker":
        raise UserError(f"--metadata {fields[0]}: setting normalise=speaker would remove it from the training frames")
    corpus = choice.inputs.corpus
    columns = metadata.columns_of([u for u in corpus.utterances if u.id in info.recordings], fields, corpus.name).of
    for field in fields:
        values = {id_: {name for name in names if name.startswith(f"{field}=")} for id_, names in columns.items()}
        for index, fold in enumerate(choice.protocol.folds):
            fit, test = (set().union(*(values[i] for i in ids)) for ids in (fold.fit, fold.test))
            if not fit & test:
                reason = f"no {field} of the test part is in the training part of fold {index}"
                raise UserError(f"--metadata {field}: {reason}, so it tells a network nothing; leave it out")


def _pairs(run: Run) -> Pairs:
    """The pairs of baselines to compare. Raises UserError where none differs in attention alone."""
    pairs = pairs_of(run.baselines, run.plan.settings.width or run.store.info.dim)
    if not pairs.attention:
        reason = "no two differ in the pool alone, of which one has `weights` (see bas.blocks.LastStateAttention)"
        raise UserError(f"space {next(iter(run.spaces))}: baselines {', '.join(run.baselines)}: {reason}")
    return pairs


def _with_metadata(folder: Path, choice: StoreChoice, fields: Sequence[str], console: Console) -> Run:
    """The run on the store with metadata. The store with metadata is made where it is missing."""
    features, layer = Path(choice.inputs.plan.features), choice.inputs.plan.layer
    layers = None if layer in (BEST, *ALL) else [int(layer)]
    into = metadata.beside(features, fields, layers)
    metadata.append(features, into, fields, console, layers)
    inputs = choice.inputs.with_plan(features=str(into.resolve()))
    inputs = replace(inputs, store=FeatureStore(into))
    return start(folder / f"{choice.name}-with-{'-'.join(fields)}", inputs, choice.protocol)


def _train(run: Run, pool: Workers, memory: float | None) -> None:
    """Do the missing jobs of one run."""
    plan, folds = run.plan, range(len(run.protocol.folds))
    placement, line = place_features(run, pool.count, memory)
    pool.console.print(f"{run.folder}: protocol {run.protocol.description}; {line}", markup=False, highlight=False)
    first = [Job(Kind.LAYER, BEST, f, 0) for f in folds] if plan.layer == BEST else []
    linear = [Job(Kind.LINEAR, row, f, plan.seeds[0]) for row in run.task.linears for f in folds]
    baselines = [Job(Kind.BASELINE, row, f, s) for row in run.baselines for s in plan.seeds for f in folds]
    for jobs, epochs, what in ((first, 1, "layers"), (linear, 1, "linear rows"), (baselines, None, "baselines")):
        pool.run(run, jobs, epochs or plan.settings.epochs, what, placement, open=SharesSession)


def _contours(run: Run, console: Console) -> Contours:
    """Loudness and pitch of the tested utterances, measured once for all stores."""
    path, ids = run.folder / CONTOURS, tuple(dict.fromkeys(run.protocol.test_ids))
    if path.exists():
        saved = Contours.load(path)
        if (saved.ids, saved.opensmile) == (ids, opensmile_version()):
            return saved
    with bar(console, "utterances") as progress:
        task = progress.add_task("loudness and pitch", total=len(ids))
        waves = ((id_, audio.load(run.utterances[run.position[id_]])) for id_ in ids)
        measured = contours(waves, lambda: progress.advance(task))
    measured.save(path)
    return measured


def _look(run: Run, attention: Attention, contour: Contours) -> Looked:
    """What the weights of each attentive model go with, and some utterances to look at."""
    (_, units_N), models, shown = tested(run), {}, {}
    folds = run.protocol.folds
    folds_N = np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds])
    for index, name in enumerate(attention.models):
        utterances = heard(run, attention, contour, index)
        models[name] = correlate(utterances, folds_N, units_N)
        shown[name] = examples(attention.ids, utterances)
    return models, shown


def _metadata(with_metadata: Predicted, without: Predicted, fields: Sequence[str]) -> WithMetadata:
    """Every row with metadata, and against the same without."""
    return WithMetadata(
        with_metadata.run.folder.name, tuple(fields), rows_of(with_metadata), with_metadata.like(without)
    )
