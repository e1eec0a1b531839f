"""How do listeners hear it? The ablation of arXiv 2308.14359, encoder x attention, and what the paper leaves open.

A space's own baselines on every store: with and without attention, one network for all emotions and one for each,
beside the linear rows. Each store against the first: an encoder against another, or silence behind the recordings (`bas
extract --pad-audio`) against none. The first with metadata beside its frames. And what attention looks at: its weights
exported, and held against loudness, pitch and time. Nothing is searched here; `bas compare` does.

A folder for each store, and one for the first with metadata, every one a run like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from bas.errors import UserError
from bas.features import metadata
from bas.features.store import FeatureStore, StoreInfo
from bas.protocols import Protocol
from bas.report.notes import announce_study
from bas.report.results import write_results
from bas.runs.plan import BEST, MIX, Job
from bas.runs.results import ceiling, tested
from bas.runs.run import Inputs, Run
from bas.runs.session import place_features
from bas.runs.start import start
from bas.runs.workers import Workers
from bas.speech import audio
from bas.speech.acoustics import Contours, contours, opensmile_version
from bas.studies.shares import page
from bas.studies.shares.attention import Attention, SharesSession, export
from bas.studies.shares.contours import correlate, examples, heard
from bas.studies.shares.numbers import Looked, Predicted, pairs_of, rows_of, tabulate
from bas.studies.shares.results import Pairs, ShareStudy, WithMetadata
from bas.util.files import write_text
from bas.util.progress import bar

CONTOURS = "contours.npz"


@dataclass(frozen=True)
class Asked:
    """One store: its inputs, whose plan names its layer, and its split."""

    name: str  # of its folder
    inputs: Inputs
    protocol: Protocol

    @property
    def info(self) -> StoreInfo:
        return self.inputs.store.info


def carry_out(
    folder: Path,
    asked: Sequence[Asked],
    fields: Sequence[str],
    workers: int,
    console: Console,
    memory: float | None = None,
) -> ShareStudy:
    """Train what is not trained yet; write and show the report. The caller holds the folder's lock.

    asked: stores of the same utterances; the others are held against the first. fields: metadata, some of
    `metadata.FIELDS`, that the first is trained with too; none: without. memory: see the study `compare`.
    """
    # Whatever is refused is refused before hours of training.
    version = opensmile_version()
    for one in asked:
        task = one.inputs.task
        if task.label != "shares":
            told = f"predicts {task.label}, no shares of listeners; name a space whose task is Shares"
            raise UserError(f"task {task.name}: {told}, such as --space emotion_share")
        _check_alike(asked[0], one)
    if fields:
        _check_fields(asked[0], fields)
    runs = [start(folder / one.name, one.inputs, one.protocol) for one in asked]
    pairs = _pairs(runs[0])
    more = [_with_metadata(folder, asked[0], fields, console)] if fields else []
    with Workers(workers, console) as pool:
        for run in (*runs, *more):
            extra = f" with {run.store.info.derived.split()[1]}" if run.store.info.derived else ""
            announce_study(run, run.folder, f"layer {run.plan.layer}{extra}", console)
            _train(run, pool, memory)
    contour = _contours(runs[0], console)
    predicted = [Predicted.by(run) for run in runs]
    first = predicted[0]
    results = ShareStudy(
        run=folder.name,
        pairs=pairs,
        metadata=_metadata(Predicted.by(more[0]), first, fields) if more else None,
        ceiling=ceiling(runs[0]),
        opensmile=version,
        stores=tuple(
            tabulate(of, first, pairs, _look(of.run, export(of.run, pairs.attentive), contour)) for of in predicted
        ),
    )
    write_results(folder, results)
    write_text(folder / "table.md", page.markdown(results))
    page.draw(folder, results)
    page.show(results, console)
    return results


def _check_alike(first: Asked, other: Asked) -> None:
    """Whether two stores are of the same utterances in the same folds."""
    a, b = first.info, other.info
    where = f"stores {first.name} and {other.name}"
    if (a.corpus, a.root) != (b.corpus, b.root):
        raise UserError(f"{where}: of {a.corpus} {a.root} and of {b.corpus} {b.root}; study one corpus at a time")
    held = [{i for fold in one.protocol.folds for ids in fold.parts().values() for i in ids} for one in (first, other)]
    if differ := held[0] ^ held[1]:
        told = f"{len(differ)} utterances are in one of them alone, {min(differ)} the first"
        raise UserError(f"{where}: {told}; make both of the same with `bas features subset --ids`")
    assert first.protocol.hash == other.protocol.hash, "one rule and seed makes one split of the same utterances"
    for id_ in sorted(held[0]):
        if a.recordings[id_][0] != b.recordings[id_][0]:
            raise UserError(f"{where}: extracted from other recordings of {id_}; extract one of them anew")


def _check_fields(one: Asked, fields: Sequence[str]) -> None:
    """Whether each of the fields can tell anything."""
    info, normalise = one.info, one.inputs.plan.settings.normalise
    if normalise == "speaker":
        raise UserError(f"--metadata {fields[0]}: setting normalise=speaker would take it out of the training frames")
    corpus = one.inputs.corpus
    columns = metadata.columns_of([u for u in corpus.utterances if u.id in info.recordings], fields, corpus.name).of
    for field in fields:
        values = {id_: {name for name in ones if name.startswith(f"{field}=")} for id_, ones in columns.items()}
        for index, fold in enumerate(one.protocol.folds):
            fit, test = (set().union(*(values[i] for i in ids)) for ids in (fold.fit, fold.test))
            if not fit & test:
                told = f"no {field} of the test part is in the training part of fold {index}"
                raise UserError(f"--metadata {field}: {told}, so it tells a network nothing: leave it out")


def _pairs(run: Run) -> Pairs:
    pairs = pairs_of(run.baselines, run.plan.settings.width or run.store.info.dim)
    if not pairs.attention:
        told = "no two of them are alike but for the pool, one with `weights` (see bas.blocks.LastStateAttention)"
        raise UserError(f"space {next(iter(run.spaces))}: baselines {', '.join(run.baselines)}: {told}")
    return pairs


def _with_metadata(folder: Path, one: Asked, fields: Sequence[str], console: Console) -> Run:
    """The run on the same store with metadata, which is made where it is not there."""
    features, layer = Path(one.inputs.plan.features), one.inputs.plan.layer
    layers = None if layer in (BEST, MIX) else [int(layer)]
    into = metadata.beside(features, fields, layers)
    metadata.append(features, into, fields, console, layers)
    inputs = one.inputs.changed(features=str(into.resolve()))
    inputs = replace(inputs, store=FeatureStore(into))
    return start(folder / f"{one.name}-with-{'-'.join(fields)}", inputs, one.protocol)


def _train(run: Run, pool: Workers, memory: float | None) -> None:
    plan, folds = run.plan, range(len(run.protocol.folds))
    placement, line = place_features(run, pool.count, memory)
    pool.console.print(f"{run.folder}: protocol {run.protocol.told}; {line}", markup=False, highlight=False)
    first = [Job("layer", BEST, f, 0) for f in folds] if plan.layer == BEST else []
    linear = [Job("linear", row, f, plan.seeds[0]) for row in run.task.linears for f in folds]
    baselines = [Job("baseline", row, f, s) for row in run.baselines for s in plan.seeds for f in folds]
    for jobs, epochs, what in ((first, 1, "layers"), (linear, 1, "linear rows"), (baselines, None, "baselines")):
        pool.run(run, jobs, epochs or plan.settings.epochs, what, placement, open=SharesSession)


def _contours(run: Run, console: Console) -> Contours:
    """Loudness and pitch of the tested utterances; measured once for all stores."""
    path, ids = run.folder / CONTOURS, tuple(dict.fromkeys(run.protocol.tested))
    if path.exists() and (there := Contours.load(path)).ids == ids:
        return there
    with bar(console, "utterances") as progress:
        task = progress.add_task("loudness and pitch", total=len(ids))
        waves = ((id_, audio.load(run.utterances[run.position[id_]])) for id_ in ids)
        found = contours(waves, lambda: progress.advance(task))
    found.save(path)
    return found


def _look(run: Run, attention: Attention, contour: Contours) -> Looked:
    """What the weights of each attentive model go with, and some utterances to look at."""
    (_, units_N), models, shown = tested(run), {}, {}
    for index, name in enumerate(attention.models):
        utterances = heard(run, attention, contour, index)
        models[name] = correlate(utterances, units_N)
        shown[name] = examples(attention.ids, utterances)
    return models, shown


def _metadata(found: Predicted, without: Predicted, fields: Sequence[str]) -> WithMetadata:
    """Every row with metadata, and against the same without."""
    return WithMetadata(found.run.folder.name, tuple(fields), rows_of(found), found.like(without))
