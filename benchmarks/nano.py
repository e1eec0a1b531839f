"""How good `bas-hubert-nano` is: a linear probe on each state's mean, beside the same network with random weights,
log-mel and any other encoder; and how fast it is. Writes nano.md and figures/nano-layers.png.

The probe is the logistic regression of every table of `bas`. In each fold its state is chosen by cross-validation over
the training speakers, its regularisation on the valid part; the test speakers are used once. Everything is repeated
for several seeds, of the folds and of the random weights.

Axes: U utterances, L states, D width, S seeds, N utterances as all folds together test them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from features import QUIET, commit, machine
from joblib import Parallel, delayed
from matplotlib.figure import Figure

from bas.corpora import Corpus, open_corpus
from bas.encoders import LOG_MEL, NANO, files_of, load_encoder
from bas.errors import UserError
from bas.features.extract import extract
from bas.features.plan import Request
from bas.features.store import FeatureStore
from bas.protocols import Fold, make
from bas.runs.layers import best, cross_validate
from bas.runs.linear import fit_linear
from bas.speech.audio import duration
from bas.stats import Paired, Predictions, between, interval_of_mean, paired, spread, ua, wa
from bas.tasks import EMOTION
from bas.util.files import write_text

PAGE = Path(__file__).with_suffix(".md")
RANDOM, DEVIATION = "random weights", "log-mel, mean and deviation"
POINTS = {RANDOM: 10, DEVIATION: 5}  # by which the model is meant to be better


@dataclass(frozen=True)
class Probed:
    """One row: class indices of its predictions, by each state and by the one that training speakers choose."""

    states: dict[int, np.ndarray]  # (S, N)
    chosen: np.ndarray  # (S, N)
    picks: list[int]  # by seed and fold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--root", required=True, type=Path)
    parser.add_argument("--beside", nargs="*", default=[], metavar="NAME=ENCODER", help="other encoders to show")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing; default: %(default)s")
    arguments = parser.parse_args()
    try:
        page = measure(arguments)
    except UserError as error:
        sys.exit(f"benchmarks/nano.py: {error}")
    write_text(PAGE, page)
    print(page, f"\nwritten: {PAGE}", sep="")


def measure(arguments: argparse.Namespace) -> str:
    corpus = open_corpus(arguments.corpus, arguments.root)
    with tempfile.TemporaryDirectory(prefix="nano-") as temporary:
        work = Path(temporary)
        speeds = [speed(corpus, work / f"round{i}") for i in range(arguments.rounds)]
        nano = means(corpus, NANO, work)
        seeds = range(arguments.seeds)
        inputs = {
            NANO: [nano] * len(seeds),
            RANDOM: [means(corpus, random_weights(work / f"random{seed}", seed), work) for seed in seeds],
            "log-mel, mean": [means(corpus, LOG_MEL, work)] * len(seeds),
            DEVIATION: [means_and_deviations(corpus, LOG_MEL, work)] * len(seeds),
        }
        for text in arguments.beside:
            name, _, encoder = text.partition("=")
            inputs[name] = [means(corpus, encoder, work)] * len(seeds)
    rows = {name: probe(corpus, of_seed) for name, of_seed in inputs.items()}
    return write_page(arguments, corpus, rows, speeds)


def speed(corpus: Corpus, folder: Path) -> float:
    """Seconds of speech extracted in one second, with all states written and loading included."""
    begun = time.perf_counter()
    extract(corpus, load_encoder(NANO, torch.device("cpu")), folder, Request(corpus.name, folder), QUIET)
    return sum(duration(u) for u in corpus.utterances) / (time.perf_counter() - begun)


def random_weights(folder: Path, seed: int) -> str:
    """The network of `bas-hubert-nano` before any training."""
    torch.manual_seed(seed)
    from transformers import HubertConfig, HubertModel  # here: bas.encoders first, see there

    HubertModel(HubertConfig.from_pretrained(files_of(NANO))).save_pretrained(folder)
    preprocessor = "preprocessor_config.json"
    (folder / preprocessor).write_bytes((Path(files_of(NANO)) / preprocessor).read_bytes())
    return str(folder)


def means(corpus: Corpus, encoder: str, work: Path) -> np.ndarray:
    """Each utterance's mean frame of every state, `(U, L, D)`, through a feature store, as in every study."""
    store = open_store(corpus, encoder, work)
    each = [store.gather([u.id], store.info.layers)[0].astype(np.float32).mean(1) for u in corpus.utterances]
    return np.stack(each)


def means_and_deviations(corpus: Corpus, encoder: str, work: Path) -> np.ndarray:
    """`(U, 1, 2 D)`: the mean of state 0, and its deviation over time."""
    store = open_store(corpus, encoder, work)
    frames = [store.read(u.id, 0).astype(np.float32) for u in corpus.utterances]
    return np.stack([np.concatenate([x_TD.mean(0), x_TD.std(0)]) for x_TD in frames])[:, None]


def open_store(corpus: Corpus, encoder: str, work: Path) -> FeatureStore:
    folder = work / f"store-{encoder.replace('/', '-')}"
    if not folder.exists():
        extract(corpus, load_encoder(encoder, torch.device("cpu")), folder, Request(corpus.name, folder), QUIET)
    return FeatureStore(folder)


def probe(corpus: Corpus, inputs: Sequence[np.ndarray]) -> Probed:
    """inputs: `(U, L, D)` for each seed."""
    jobs = []
    for seed, x_ULD in enumerate(inputs):
        jobs += [delayed(probe_fold)(corpus, x_ULD, fold) for fold in folds_of(corpus, seed)]
    done = Parallel(n_jobs=-1)(jobs)
    states = range(inputs[0].shape[1])
    predictions = np.zeros((len(states) + 1, len(inputs), len(corpus.utterances)), np.int64)
    at = [(seed, fold) for seed in range(len(inputs)) for fold in folds_of(corpus, seed)]
    where = {u.id: i for i, u in enumerate(corpus.utterances)}
    for (seed, fold), (of_states, pick) in zip(at, done, strict=True):
        tested = [where[i] for i in fold.test]
        predictions[:-1, seed, tested] = of_states
        predictions[-1, seed, tested] = of_states[pick]
    return Probed(dict(zip(states, predictions, strict=False)), predictions[-1], [pick for _, pick in done])


def folds_of(corpus: Corpus, seed: int) -> tuple[Fold, ...]:
    return make(corpus, EMOTION, "speaker:5", seed).folds


def probe_fold(corpus: Corpus, x_ULD: np.ndarray, fold: Fold) -> tuple[np.ndarray, int]:
    """Predictions `(L, N)` for the fold's test part by each state, and the state that training speakers choose."""
    where = {u.id: i for i, u in enumerate(corpus.utterances)}
    fit, valid, test = ([where[i] for i in part] for part in (fold.fit, fold.valid, fold.test))
    targets = targets_of(corpus)
    speakers = np.array([u.speaker for u in corpus.utterances])
    trained, states = fit + valid, range(x_ULD.shape[1])
    linear = next(iter(EMOTION.linears.values()))
    scores = cross_validate(x_ULD[trained], targets[trained], speakers[trained], states, EMOTION, wa)
    predictions = []
    for state in states:
        x_UD = x_ULD[:, state]
        model, _ = fit_linear(linear, wa, (x_UD[fit], targets[fit]), (x_UD[valid], targets[valid]))
        predictions.append(model.predict(x_UD[test]))
    return np.stack(predictions), best(scores)


def targets_of(corpus: Corpus) -> np.ndarray:
    return EMOTION.targets(corpus.utterances, EMOTION.outputs(corpus.utterances))


def write_page(arguments: argparse.Namespace, corpus: Corpus, rows: dict[str, Probed], speeds: Sequence[float]) -> str:
    targets_N, speakers_N = targets_of(corpus), np.array([u.speaker for u in corpus.utterances])

    def describe(comparison: Paired) -> str:
        difference = f"{100 * comparison.difference:+.1f} ({between(comparison.low, comparison.high)})"
        return f"{difference}, p {comparison.p:.2g}: {comparison.verdict}"

    def row(predictions_SN: np.ndarray) -> Predictions:
        """Each seed draws folds of its own: it counts as one training of all utterances."""
        return Predictions(predictions_SN, np.zeros(len(targets_N), int))

    def score(predictions_SN: np.ndarray) -> tuple[float, float, float]:
        of = interval_of_mean(targets_N, row(predictions_SN), speakers_N, wa)
        return 100 * float(np.mean([wa(targets_N, p_N) for p_N in predictions_SN])), 100 * of.low, 100 * of.high

    def against(one: Probed, other: Probed) -> Paired:
        return paired(targets_N, row(one.chosen), row(other.chosen), speakers_N, wa)

    table = ["| input | WA | UA | interval of WA | states chosen | against random weights | against log-mel |"]
    table.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, probed in rows.items():
        cells = [name]
        for metric in (wa, ua):
            mean, deviation = spread([metric(targets_N, p_N) for p_N in probed.chosen])
            cells.append(f"{100 * mean:.1f} ± {100 * deviation:.1f}")
        _, low, high = score(probed.chosen)
        cells.append(between(low, high, "", scale=1))
        cells.append(", ".join(f"{s} × {probed.picks.count(s)}" for s in sorted(set(probed.picks))))
        cells += ["–" if name == other else describe(against(probed, rows[other])) for other in (RANDOM, DEVIATION)]
        table.append(f"| {' | '.join(cells)} |")

    deepest = max(len(probed.states) for probed in rows.values())
    curves = [f"| input | {' | '.join(f'state {i}' for i in range(deepest))} |", "| --- |" + " --- |" * deepest]
    scores = {name: {state: score(p_SN) for state, p_SN in probed.states.items()} for name, probed in rows.items()}
    for name, of_state in scores.items():
        cells = [f"{whole:.1f} ({between(low, high, '', scale=1)})" for whole, low, high in of_state.values()]
        curves.append(f"| {' | '.join([name, *cells, *[''] * (deepest - len(cells))])} |")
    draw(scores)

    bars = []
    for other, points in POINTS.items():
        difference = 100 * against(rows[NANO], rows[other]).difference
        verb = "reached" if difference >= points else "MISSED"
        bars.append(f"- at least {points} points of WA over {other}: {difference:+.1f}, {verb};")
    middle = float(np.median(speeds))
    bars.append(
        f"- at least 100 times real time: {middle:.0f} ({min(speeds):.0f} to {max(speeds):.0f}), "
        f"{'reached' if middle >= 100 else 'MISSED'}."
    )
    named = [text.partition("=")[::2] for text in arguments.beside]
    beside = "".join(f" {name}={'/'.join(Path(encoder).parts[-2:])}" for name, encoder in named)
    return PAGE_TEXT.format(
        command=f"python benchmarks/nano.py --corpus {arguments.corpus} --root path/to/{arguments.corpus}"
        + (f" --beside{beside}" if beside else ""),
        date=date.today().isoformat(),
        commit=commit(),
        machine=machine(torch.device("cpu")),
        corpus=corpus.name,
        utterances=len(corpus.utterances),
        revision=load_encoder(NANO, torch.device("cpu")).info.revision,
        speakers=len(set(speakers_N)),
        seeds=arguments.seeds,
        rounds=arguments.rounds,
        bars="\n".join(bars),
        table="\n".join(table),
        curves="\n".join(curves),
    )


def draw(scores: dict[str, dict[int, tuple[float, float, float]]]) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="state", ylabel="WA, 95 % interval over speakers")
    for i, (name, of_state) in enumerate(scores.items()):
        at = np.array(list(of_state)) + 0.03 * i
        whole, low, high = np.array(list(of_state.values())).T
        if len(at) == 1:
            axes.axhline(whole[0], color=f"C{i}", linestyle="dashed", linewidth=1, label=name)
        else:
            axes.errorbar(at, whole, (whole - low, high - whole), color=f"C{i}", capsize=3, marker="o", label=name)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    axes.grid(alpha=0.3)
    path = PAGE.parent / "figures" / "nano-layers.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


PAGE_TEXT = """# bas-hubert-nano: what its states hold

`{command}`, {date}, commit {commit}, on {machine}.
{corpus}, {utterances} utterances of {speakers} speakers; encoder {revision}, see its card for what it learnt from.
Logistic regression on the mean over time; five folds of whole speakers, {seeds} seeds (of the folds, and of the random
weights). In each fold the state is chosen by cross-validation over the training speakers, the regularisation on the
valid part. Points; mean ± deviation over seeds; intervals of 95 % and p for
other speakers and other trainings, not corrected for the number of rows.

What it was to reach:

{bars}

{table}

## By state

State 0 enters the first transformer layer. Rows named stage-1 and stage-2 are `make nano` as it stood after these.

![accuracy by state](figures/nano-layers.png)

{curves}

A row of this table is no result to cite: which state is best is seen on the test speakers here.

Speed: all of {corpus} extracted by `bas`, every state written, on the cores above, the loading of the encoder counted;
seconds of speech a second, the median of {rounds} rounds with the lowest and highest.
"""


if __name__ == "__main__":
    main()
