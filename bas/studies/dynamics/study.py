"""How do an encoder's embeddings change during fine-tuning? From recordings to tables and figures.

After *What Happens To WavLM Embeddings During Speech Emotion Recognition Fine-tuning?* (the paper). Its subsets 1, 2
and 3 are the fit, valid and test parts of a fold of the protocol. A fold is called a rotation, its test part the third
part. Fine-tuning trains on fit and stops by valid; everything is measured on the third part.

    run.json         the plan, what decides the numbers, versions
    protocol.json    the folds by utterance id
    corpus.csv       a manifest of the recordings as prepared: 16 kHz mono, one loudness, under audio/
    prepared.json    how they were prepared, and which were left out
    acoustic.npz     acoustic features (eGeMAPS and more) of every third part
    rotation0.csv    a manifest of one third part, with which its feature stores are read
    rotation0/       finetune.json; checkpoints/, features/, means/ and analysis/ by step
    results.json     all results; table.md, figures/ and tb/ show them
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.utils.tensorboard.writer import SummaryWriter

from bas import NUMBERS
from bas.corpora import Corpus, Utterance, export, open_corpus
from bas.corpora.labels import is_table, relabel
from bas.corpora.selection import select
from bas.encoders import Tunable, load_encoder, tunable
from bas.encoders.base import revision_of
from bas.encoders.opening import cached_first
from bas.errors import UserError
from bas.features.recordings import recording_hashes
from bas.protocols import Protocol, make
from bas.report.format import encoder_name, points
from bas.report.notes import tell_protocol
from bas.report.results import write_results
from bas.runs import tensorboard
from bas.runs.results import Split
from bas.speech import acoustics
from bas.studies.dynamics.analysis import AnalysisSettings, analyse
from bas.studies.dynamics.checkpoints import embed, mean_states, own_head, read_means, refitted
from bas.studies.dynamics.figures import figures
from bas.studies.dynamics.finetune import checkpoint_of, finetune, read_finished, read_head
from bas.studies.dynamics.numbers import tabulate
from bas.studies.dynamics.page import markdown
from bas.studies.dynamics.prepare import acoustic_of, prepare, texts_of
from bas.studies.dynamics.results import Checkpoint, Dynamics, FineTuned, Rotation, Setting
from bas.tasks import EMOTION
from bas.training.loop import seed_everything
from bas.training.tuning import Tuning
from bas.util.figures import legible
from bas.util.files import read_record, replacing, write_json, write_text
from bas.util.markdown import paragraph, plain, section
from bas.util.terminal import Terminal
from bas.util.typed import from_plain
from bas.util.versions import versions

LOUDNESS = -23.0
"""LUFS, as in the paper."""

FEW = 30
"""Speakers. With fewer, one third part would hold a handful of speakers, so the third part is rotated over all."""

MANY_RULE, FEW_RULE = "speaker:64/20/16", "speaker:5"  # the paper's rule, and ours
REMEDY = "restore it, or give another --name"


@dataclass(frozen=True)
class Plan:
    """The choices of the user."""

    corpus: str  # the reader's name
    root: str
    truncated: bool  # recordings that break off are taken as far as they go, and not skipped
    encoder: str
    revision: str | None
    real_length: bool
    labels: str | None  # as bas.corpora.labels.relabel takes them; None: the labels of the corpus
    protocol: str | None  # a rule; None: MANY_RULE, or FEW_RULE below FEW speakers
    protocol_seed: int
    loudness: float | None  # LUFS; None: as recorded
    text_encoder: str | None  # makes vectors of the texts; None: a text that repeats is a category
    preset: str
    settings: Tuning
    seed: int
    device: str  # cpu | cuda
    columns: Mapping[str, str] = field(default_factory=dict)  # of the corpus, by field
    keep: tuple[str, ...] = ()  # own columns of a table of labels
    where: tuple[str, ...] = ()  # a selection of the corpus
    analysis: AnalysisSettings = field(default_factory=AnalysisSettings)


@dataclass(frozen=True)
class Study:
    """An open run folder."""

    folder: Path
    plan: Plan
    protocol: Protocol
    corpus: Corpus  # the prepared recordings
    acoustic: acoustics.Acoustic
    texts: dict[str, Any]  # by id: the text, or its vector if there is a text encoder
    setting: Setting  # the head of the results


def carry_out(
    folder: Path, plan: Plan, console: Console, *, rotations: int | None = None, keep_weights: bool = False
) -> Dynamics:
    """Do what is not done yet of the first `rotations` folds (None: all), and write their results.

    keep_weights: keep the weights of every checkpoint from now on; otherwise those of a rotation's last checkpoint
    only, the others are deleted when they have been measured.
    Raises UserError where corpus, labels, encoder, protocol or settings are refused, and for a folder that was made
    with other choices. The caller holds the folder's lock.
    """
    study = _start(folder, plan, rotations, console)
    count = len(study.protocol.folds) if rotations is None else rotations
    done = [_rotate(study, index, count, keep_weights, console) for index in range(count)]
    measured = tabulate(done)
    results = Dynamics(**vars(study.setting), **vars(measured), finetuned=tuple(rotation.finetune for rotation in done))
    write_results(folder, results)
    write_text(folder / "table.md", _heading(results) + markdown(results, plan.text_encoder))
    with _board(study, "figures", replace_old=True) as board:
        for name, figure in figures(results).items():
            with legible(figure):
                with replacing(folder / "figures" / f"{name}.png") as temporary, temporary.open("wb") as stream:
                    figure.savefig(stream, format="png", dpi=150)
                board.add_figure(name, figure, 0)
    return results


def _start(folder: Path, plan: Plan, rotations: int | None, console: Console) -> Study:
    """Make the run's folder, or open it again. Raises UserError where it was made with other choices."""
    corpus = open_corpus(plan.corpus, Path(plan.root), plan.truncated, plan.columns)
    corpus = select(relabel(corpus, plan.labels, plan.keep) if plan.labels else corpus, plan.where)
    encoder = _load(plan, plan.encoder, plan.revision)
    rule, why = _rule(corpus, plan)
    protocol = make(corpus, EMOTION, rule, plan.protocol_seed)
    corpus = replace(corpus, utterances=corpus.labelled())
    texts = texts_of(corpus, plan.text_encoder, torch.device(plan.device))
    if rotations is not None and not 1 <= rotations <= len(protocol.folds):
        raise UserError(f"--rotations {rotations}: {protocol.rule} makes 1 to {len(protocol.folds)}")
    made_of = _made_of(plan, corpus, encoder, protocol)
    if (folder / "run.json").exists():
        _check_same(folder, made_of)
    elif folder.exists() and any(
        path.name not in (".lock", "experiment.toml", "study.json") for path in folder.iterdir()
    ):
        raise UserError(f"{folder}: holds something else; give another --name")
    write_json(folder / "run.json", {"plan": asdict(plan), "made_of": made_of, "versions": versions()})
    prepared, skipped = prepare(corpus, encoder, folder, plan.loudness, console)
    if skipped:
        protocol = make(corpus, EMOTION, rule, plan.protocol_seed, skipped=skipped)
    protocol.write(folder / "protocol.json")
    console.print(f"protocol: {protocol.description}{why}", highlight=False, markup=False)
    tell_protocol(protocol, console)
    tested = tuple(dict.fromkeys(protocol.test_ids))
    acoustic = acoustic_of(prepared, tested, folder, console)
    split = Split.of(protocol)
    setting = Setting(
        corpus=corpus.name,
        note=corpus.note,
        encoder=encoder.info,
        protocol=replace(split, description=split.description + why),
        folds=len(protocol.folds),
        preset=plan.preset,
        finetuning=plan.settings,
        loudness=plan.loudness,
        text_encoder=plan.text_encoder,
        seed=plan.seed,
        device=plan.device,
        skipped=skipped,
        versions=versions(),
    )
    return Study(folder, plan, protocol, prepared, acoustic, texts, setting)


def _load(plan: Plan, name: str, revision: str | None) -> Tunable:
    seed_everything(plan.seed, "weights")  # draws the masking vector where the files lack it
    return tunable(load_encoder(name, torch.device(plan.device), revision, real_length=plan.real_length))


def _rule(corpus: Corpus, plan: Plan) -> tuple[str, str]:
    """The rule of the protocol, and a note on why it was chosen."""
    if plan.protocol:
        return plan.protocol, ""
    speakers = len({u.speaker for u in corpus.labelled()})
    if speakers < FEW:
        few = FEW_RULE if speakers >= 5 else "speaker"
        return few, f"; the default with {speakers} speakers (below {FEW}: the third part is rotated)"
    return MANY_RULE, f"; the default with {speakers} speakers"


def _made_of(plan: Plan, corpus: Corpus, encoder: Tunable, protocol: Protocol) -> dict[str, Any]:
    """Everything that changes a number, by name."""
    hashes = recording_hashes(corpus.utterances, lambda: None)
    recordings = [[u.id, hashes.get(u.id)] for u in corpus.utterances]
    fields = [[u.id, u.label, u.speaker, u.text] for u in corpus.utterances]
    return {
        "study": "dynamics",
        "encoder": encoder.info.revision,
        "input": encoder.info.input,
        "recordings": _digest(recordings),
        "label scheme": "of a table" if is_table(plan.labels) else plan.labels,
        "labels": _digest(fields),
        "protocol": protocol.hash,
        "--accept-truncated": plan.truncated,
        "loudness": plan.loudness,
        "text encoder": plan.text_encoder,
        "text encoder's revision": _text_revision(plan.text_encoder),
        "seed": plan.seed,
        "device": plan.device,
        "version of opensmile": acoustics.opensmile_version(),
        "version of bas": NUMBERS,
        **{f"version of {name}": versions()[name] for name in ("torch", "transformers", "scikit-learn")},
        **{f"setting {name}": value for name, value in asdict(plan.settings).items()},
        "analysis": _digest(asdict(plan.analysis)),
    }


def _text_revision(name: str | None) -> str | None:
    """The revision of a loaded text encoder; the cache keeps files of a hub under their commit."""
    from transformers.utils.hub import cached_file  # takes seconds to import, needed here only

    if name is None:
        return None
    if Path(name).is_dir():
        return revision_of(name, None)
    path = cached_first(name, lambda local: cached_file(name, "config.json", local_files_only=local))
    return revision_of(name, Path(str(path)).parent.name)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def _check_same(folder: Path, made_of: dict[str, Any]) -> None:
    """Raise UserError where the folder was made with other choices."""
    old = read_record(folder / "run.json", REMEDY).get("made_of")
    if not isinstance(old, dict) or old.keys() != made_of.keys():
        raise UserError(f"{folder}/run.json: not of this study, or of another version of bas; {REMEDY}")
    for name, value in made_of.items():
        if old[name] != value:
            raise UserError(f"{folder}: made with {name} {old[name]}, now {value}; give another --name")


def _rotate(study: Study, index: int, count: int, keep_weights: bool, console: Console) -> Rotation:
    """One fold: fine-tune, then measure every checkpoint."""
    where, plan = study.folder / f"rotation{index}", study.plan
    utterance_of = {u.id: u for u in study.corpus.utterances}
    parts = {name: [utterance_of[i] for i in ids] for name, ids in study.protocol.folds[index].parts().items()}
    sizes = ", ".join(f"{name} {len(us)} of {len({u.speaker for u in us})} speakers" for name, us in parts.items())
    console.print(f"{where} ({index + 1} of {count}): {sizes}", highlight=False, markup=False)
    done = read_finished(where)
    if done is None:
        encoder, seed = _load(plan, plan.encoder, plan.revision), 1000 * plan.seed + index
        with _board(study, where.name, replace_old=False) as board:
            done = finetune(encoder, EMOTION, parts["fit"], parts["valid"], plan.settings, seed, where, board, console)
        del encoder  # frees the GPU for the encoders of the checkpoints
    line = f"{done.steps[-1]} steps, {done.epochs:.1f} epochs, {done.seconds:.0f} s: {done.stopped}"
    console.print(line, highlight=False, markup=False)
    checkpoints = []
    with _board(study, f"{where.name}/third", replace_old=True) as board:
        for step in done.steps:
            with console.status(f"step {step}"):
                checkpoints.append(_measure(study, index, step, parts, done))
            _report(checkpoints[-1], board, console)
            weights = checkpoint_of(where, step)
            if not keep_weights and step != done.steps[-1] and weights.exists():
                shutil.rmtree(weights)
    return Rotation(index, done, tuple(checkpoints))


def _measure(study: Study, index: int, step: int, parts: dict[str, list[Utterance]], done: FineTuned) -> Checkpoint:
    """The analysis of one checkpoint on the third part, and the scores of the model cut off after each state."""
    where, plan, name = study.folder / f"rotation{index}", study.plan, f"step-{step:05}"
    path, weights = where / "analysis" / f"{name}.json", checkpoint_of(where, step)
    if path.exists():
        return _read(path, f"delete {path if weights.is_dir() else where}: it is made again")
    if not weights.is_dir():
        raise UserError(f"{path}: missing, and so are the weights to measure; put them back, or give another --name")
    manifest = study.folder / f"{where.name}.csv"
    export.write(replace(study.corpus, utterances=tuple(parts["test"])), manifest)
    third = open_corpus("manifest", manifest)
    parts = {**parts, "test": list(third.utterances)}
    ids = tuple(u.id for u in third.utterances)
    targets = {part: EMOTION.targets(utterances, done.outputs) for part, utterances in parts.items()}
    texts = [study.texts[i] for i in ids]
    encoder = _load(plan, str(weights.resolve()), None)
    weight_OD, bias_O, revision = read_head(where, step)
    if encoder.info.revision != revision:
        raise UserError(f"{weights}: other weights than were written; delete {where}: it is made again")
    store, means = where / "features" / name, where / "means" / f"{name}.npz"
    x_LUD, cut_LUD = embed(encoder, third, manifest, store, means, Terminal(quiet=True))
    analysed = analyse(
        x_LUD,
        read_means(where / "means" / "step-00000.npz", ids, f"delete {where}: it is made again")[0] if step else None,
        study.acoustic.of(ids),
        targets["test"],
        np.array([u.speaker or "" for u in third.utterances]),
        texts if plan.text_encoder is None else np.stack(texts),
        plan.analysis,
        plan.seed,
        plan.device,
    )
    cut: dict[str, Any] = {"own": own_head(cut_LUD, weight_OD, bias_O, targets["test"])}
    if step in (0, done.steps[-1]):
        size = plan.settings.micro_batch
        states = {part: mean_states(encoder, parts[part], size) for part in ("fit", "valid")} | {"test": x_LUD}
        cut["refitted"] = refitted(states, targets, EMOTION)
    write_json(path, {"step": step, **analysed, "ids": list(ids), "cut": cut})
    return _read(path)


def _read(path: Path, remedy: str = "") -> Checkpoint:
    return from_plain(Checkpoint, read_record(path, remedy), path, remedy)


@contextmanager
def _board(study: Study, job: str, replace_old: bool) -> Iterator[SummaryWriter]:
    """TensorBoard's writer of a job. replace_old: delete what the job wrote before, so that nothing appears twice."""
    if replace_old:
        for old in (study.folder / "tb").glob(f"**/{job}/events.*"):
            old.unlink()
    with tensorboard.writer(study.folder, job, study.protocol.description, study.protocol.marks) as board:
        yield board


def _report(checkpoint: Checkpoint, board: SummaryWriter, console: Console) -> None:
    own = {name: checkpoint.cut.own.score(name)[-1] for name in ("WA", "UA", "macro_f1")}
    for name, value in own.items():
        board.add_scalar(f"third part/{name}", value, checkpoint.step)
    scores = ", ".join(f"{name.replace('_', ' ')} {points(value)}" for name, value in own.items())
    console.print(f"  step {checkpoint.step}: {scores} on the test part", highlight=False, markup=False)


def _heading(results: Dynamics) -> str:
    """The title and the choices at the head of the page."""
    protocol, encoder, how = results.protocol, results.encoder, asdict(results.finetuning)
    loudness = "as recorded" if results.loudness is None else f"{results.loudness:g} LUFS"
    notes = [results.note, *protocol.notes] if results.note else protocol.notes
    lines = [
        section(1, f"{encoder_name(encoder.name)} fine-tuned on {results.corpus}"),
        "",
        *(f"**MARK: {plain(mark)}**\n" for mark in protocol.marks),
        paragraph(
            f"Protocol {protocol.description}; {len(results.finetuned)} of {results.folds} rotations. "
            f"Encoder {encoder.revision}, {encoder.input or 'as recorded'}; recordings at {loudness}, "
            f"{len(results.skipped)} left out. "
            f"Preset {results.preset}: {', '.join(f'{name} {value:g}' for name, value in how.items())}; "
            f"seed {results.seed}, {results.device}."
        ),
        *(f"\n{paragraph(f'Note: {note}.')}" for note in notes),
    ]
    return "\n".join(lines) + "\n\n"
