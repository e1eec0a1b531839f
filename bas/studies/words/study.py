"""Do acoustic word embeddings (AWE) carry more than frames? The study of arXiv 2402.02617, with controls it lacks.

An AWE is the mean of an encoder's frames over a word. It is compared, at every stored state, with all frames (raw) and
with controls that isolate why the two might differ: the frames inside words (raw without silence), means of random
segments of the same lengths (word boundaries ignored), a word's centre frame (no mean), attention over a word's frames
(a learned mean). Some inputs are also combined with text. Finally the local neighbourhood similarity (LNS) of words
between the acoustic and a lexical space.

Each store has a folder, which holds a run for each task, like any other run, and what the tasks share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from bas.corpora import Utterance
from bas.encoders import EncoderInfo
from bas.encoders.aligner import Aligner
from bas.errors import UserError
from bas.features.derive import beside, derive
from bas.features.store import FeatureStore
from bas.protocols import Protocol
from bas.report.notes import announce_study
from bas.report.results import write_results
from bas.runs.layers import middle
from bas.runs.run import OTHER, Inputs, Run
from bas.runs.session import place_features
from bas.runs.start import start
from bas.runs.workers import Workers
from bas.speech import audio
from bas.speech.words import PSEUDO_SECONDS, Segments, describe_unaligned, random_like, word_segments
from bas.studies.words import figures, numbers, page
from bas.studies.words.jobs import (
    DERIVED,
    LEXICON,
    RECORD,
    WORDS,
    Record,
    WordsSession,
    read_lexicon,
    rows,
    run_words,
    words_job,
)
from bas.studies.words.lexicon import lexicon, word_type, words_of
from bas.studies.words.neighbours import similarity, table
from bas.studies.words.results import Neighbourhoods, StoreWords, TaskWords, TextEncoder, Words
from bas.util.files import read_record, replacing, write_json, write_text
from bas.util.progress import bar

NEAREST = 5  # neighbours of a word in the table
SHOWN = 4  # words in the table, unless the user names some
LETTERS = 5  # at least, of a word that is shown by default: shorter ones are mostly function words


@dataclass(frozen=True)
class StoreChoice:
    """One store and the tasks to predict from it; only the first task is combined with text."""

    name: str  # of the store's folder within the study's
    tasks: tuple[tuple[str, Inputs, Protocol], ...]  # name, inputs and protocol of each


@dataclass(frozen=True)
class _Spoken:
    """The words of a store's utterances."""

    choice: StoreChoice
    corpus: str  # its name
    utterances: tuple[Utterance, ...]
    segments: dict[str, Segments]  # by name: words, random
    record: Record
    vectors_NE: np.ndarray  # lexical


def carry_out(
    folder: Path,
    choices: Sequence[StoreChoice],
    text_encoder: str,
    aligner: str | None,
    shown: Sequence[str],
    left_out: Sequence[str],
    workers: int,
    console: Console,
    memory: float | None = None,
) -> Words:
    """Train what is not trained yet; write and show the report. The caller holds the folder's lock.

    text_encoder: see `lexicon.lexicon`. aligner: for words without times, see `speech.words.word_segments`. shown:
    words whose neighbours are shown; empty: frequent ones. left_out: lines on what the report lacks. memory: see the
    study `compare`. Raises UserError for a word of `shown` that no utterance has, and for what `start` refuses.
    """
    # All refusals come before hours of training.
    spoken = [_spoken(folder / choice.name, choice, text_encoder, aligner, console) for choice in choices]
    types = {word_type(word.text) for one in spoken for words in one.segments["words"].of.values() for word in words}
    if missing := [word for word in shown if word_type(word) not in types]:
        raise UserError(f"--word {missing[0]}: no utterance has it; frequent words are {', '.join(_often(spoken))}")
    runs = [
        [start(folder / choice.name / task, inputs, protocol) for task, inputs, protocol in choice.tasks]
        for choice in choices
    ]
    neighbourhoods = []
    for one in spoken:
        plan = one.choice.tasks[0][1].plan
        for name, (segments, pooling) in DERIVED.items():
            derive(Path(plan.features), Path(one.record.inputs[name]), one.segments[segments], pooling, console)
        neighbourhoods.append(_neighbours(one, shown))
    stores = []
    with Workers(workers, console) as pool:
        for one, of_store, (neighbourhood, why) in zip(spoken, runs, neighbourhoods, strict=True):
            tasks = []
            for index, run in enumerate(of_store):
                states = ", ".join(map(str, run.store.info.layers))
                announce_study(run, run.folder, f"states {states}", console)
                _train(run, index == 0, pool, memory)
                tasks.append(numbers.tabulate(run, index == 0))
            stores.append(_store(one, neighbourhood, why, tasks))
    results = Words(
        run=folder.name,
        text_encoder=TextEncoder(text_encoder, spoken[0].record.untrained),
        aligner=aligner,
        left_out=tuple(left_out),
        stores=tuple(stores),
    )
    write_results(folder, results)
    write_text(folder / "table.md", page.markdown(results))
    figures.draw(folder, results, console)
    page.show(results, console)
    return results


def _spoken(folder: Path, choice: StoreChoice, text_encoder: str, aligner: str | None, console: Console) -> _Spoken:
    """Find the words of a store's utterances; make their lexical vectors, or read those of an earlier start.

    Raises UserError where an earlier start had other words or another text encoder.
    """
    inputs = choice.tasks[0][1]
    features, device = Path(inputs.plan.features), torch.device(inputs.plan.device)
    store, corpus = inputs.store, inputs.corpus
    utterances = tuple(u for u in corpus.utterances if u.id in store)
    with bar(console, "utterances") as progress:
        task = progress.add_task(f"words of {choice.name}", total=len(utterances))
        find = Aligner(aligner, device) if aligner else None
        words = word_segments(utterances, find, lambda: progress.advance(task))
    segments = {"words": words, "random": random_like(words, {u.id: audio.duration(u) for u in utterances})}
    _print_words(choice.name, words, aligner, console)
    derived = {name: str(beside(features, *of)) for name, of in DERIVED.items()}
    record = Record(derived, words.digest, segments["random"].digest, text_encoder, False)
    if (folder / RECORD).exists():
        _check_same(folder, record)
    lexical = lexicon(text_encoder, utterances, words, device)
    record = replace(record, untrained=lexical.random)
    if (folder / RECORD).exists():
        vectors_NE, _ = read_lexicon(folder)
        if vectors_NE.shape != lexical.vectors_WE.shape or not np.allclose(vectors_NE, lexical.vectors_WE, atol=1e-2):
            reason = f"made with other weights of the text encoder {text_encoder}"
            raise UserError(f"{folder}: {reason}; give another --name")
    else:
        vectors_NE = lexical.vectors_WE
        with replacing(folder / LEXICON) as temporary, temporary.open("wb") as stream:
            ids, starts = list(lexical.starts), list(lexical.starts.values())
            np.savez(stream, vectors=vectors_NE, ids=np.array(ids), starts=np.array(starts))
    write_json(folder / RECORD, record.to_dict())  # the stores may have moved
    return _Spoken(choice, corpus.name, utterances, segments, record, vectors_NE)


def _check_same(folder: Path, record: Record) -> None:
    """Raise UserError where an earlier start recorded other words or another text encoder."""
    raw = read_record(folder / RECORD, OTHER)
    try:
        earlier = Record(**raw)
    except TypeError as error:
        raise UserError(f"{folder / RECORD}: not of this version of bas; give another --name") from error
    for name in ("words", "random", "text_encoder"):
        old, value = getattr(earlier, name), getattr(record, name)
        if old != value:
            reason = f"made with {name.replace('_', ' ')} {old}, now {value}"
            raise UserError(f"{folder}: {reason}; give another --name")


def _print_words(name: str, words: Segments, aligner: str | None, console: Console) -> None:
    sources = ", ".join(f"{count} {source}" for source, count in words.counts.items())
    count = sum(map(len, words.of.values()))
    console.print(f"{name}: {count:,} words in {len(words.of)} utterances: {sources}", highlight=False, markup=False)
    for remark in describe_unaligned(words.unaligned):
        console.print(f"{name}: {remark}", style="bold yellow", highlight=False, markup=False)
    if pseudo := words.counts["pseudo"] - len(words.unaligned):
        why = "and the aligner finds none" if aligner else "and no --aligner is given"
        console.print(
            f"{name}: {pseudo} of {len(words.of)} utterances have no word times {why}: they are cut into equal "
            f"stretches of about {PSEUDO_SECONDS} s, which are not words",
            style="bold yellow",
            highlight=False,
            markup=False,
        )


def _store(one: _Spoken, neighbourhoods: Neighbourhoods | None, why: str, tasks: Sequence[TaskWords]) -> StoreWords:
    info, words = one.choice.tasks[0][1].store.info, one.segments["words"]
    return StoreWords(
        store=one.choice.name,
        corpus=one.corpus,
        encoder=EncoderInfo(**info.encoder),
        states=tuple(info.layers),
        utterances=len(one.utterances),
        words=sum(map(len, words.of.values())),
        sources=words.counts,
        unaligned=words.unaligned,
        derived=one.record.inputs,
        neighbourhoods=neighbourhoods,
        why=why,
        tasks=tuple(tasks),
    )


def _neighbours(one: _Spoken, shown: Sequence[str]) -> tuple[Neighbourhoods | None, str]:
    """The local neighbourhood similarity of each state, over all speakers, and the neighbours of some words.

    None where too few words can be compared; the second value says why. Nothing is trained. Memory holds all word means
    as stored: 3 GB for 60,000 words of 25 states of width 1,024.
    """
    store = FeatureStore(one.record.inputs[WORDS])
    states = store.info.layers
    tokens = words_of(one.utterances, one.segments["words"], [u.speaker or u.id for u in one.utterances])
    awe_LWD, _ = store.gather([u.id for u in one.utterances], states)
    if not np.isfinite(awe_LWD).all():
        raise UserError(
            f"{store.folder}: a word's vector is not finite: damaged, or overflowed; extract its parent again"
        )
    try:
        lns = similarity(awe_LWD.swapaxes(0, 1), one.vectors_NE, tokens)
    except UserError as error:
        if shown:
            raise
        return None, str(error)
    state = middle(states)
    state_WD, k = awe_LWD[states.index(state)], min(NEAREST, lns.ks[-1])
    if shown:
        table_ = table(state_WD, one.vectors_NE, tokens, shown, k)
    else:
        table_ = ()
        for word in _frequent(tokens.types_W):
            try:
                table_ += table(state_WD, one.vectors_NE, tokens, [word], k)
            except UserError:  # too few other words to choose from, or from one speaker only
                continue
            if len(table_) == SHOWN:
                break
    return Neighbourhoods(lns, table_, state), ""


def _often(spoken: Sequence[_Spoken]) -> list[str]:
    """The most frequent words of all stores."""
    every = (word for one in spoken for words in one.segments["words"].of.values() for word in words)
    counts = Counter(type_ for word in every if (type_ := word_type(word.text)))
    return [word for word, _ in counts.most_common(SHOWN)] or ["none at all"]


def _frequent(types_W: np.ndarray) -> list[str]:
    """The word types of at least LETTERS letters, the most frequent first."""
    counts = Counter(str(type_) for type_ in types_W if len(type_) >= LETTERS)
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _train(run: Run, fused: bool, pool: Workers, memory: float | None) -> None:
    """Do the missing jobs of one task. fused: with text too."""
    placement, line = place_features(run, pool.count, memory)
    pool.console.print(f"{run.folder}: protocol {run.protocol.description}; {line}", markup=False, highlight=False)
    folds = range(len(run.protocol.folds))
    jobs = [words_job(row, f, s) for row in rows(fused) for s in run.plan.seeds for f in folds]
    what, epochs = f"words, {run.task.name}", run.plan.settings.epochs
    pool.run(run, jobs, epochs, what, placement, run_words, WordsSession)
