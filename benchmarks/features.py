"""How fast features are extracted and read, each figure a ratio within one run; `make bench` writes features.md.

Needs no data: it uses recordings of noise as long as EmoDB's, and encoders with random weights in the shape of Whisper
tiny and HuBERT base, as fast as the real ones. With --corpus and --root, a real corpus; with --whisper, real weights.
The arms of a comparison take turns, round after round; a figure is the median over rounds, with the lowest and highest.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from reading import ALLOWED, BATCH, LARGE, Arm, fresh, ratio, reading, streaming, take_turns
from rich.console import Console

from bas.corpora import Corpus, Utterance, open_corpus
from bas.encoders import Encoder, load_encoder
from bas.errors import UserError
from bas.features.extract import BATCH_SECONDS, CREW, Group, extract
from bas.features.plan import Request, batches, make_plan
from bas.speech import audio
from bas.util.device import model_of

PAGE = Path(__file__).with_suffix(".md")
QUIET = Console(file=StringIO())


# The data


def recordings(folder: Path, count: int) -> Corpus:
    """Noise of 1.2 to 9 s, 2.8 s on average: EmoDB's lengths."""
    chance = np.random.default_rng(0)
    utterances = []
    for i in range(count):
        path = folder / f"{i:04d}.wav"
        seconds = float(np.clip(chance.lognormal(0.95, 0.37), 1.2, 9.0))
        soundfile.write(path, chance.uniform(-0.3, 0.3, round(seconds * 16_000)), 16_000)
        utterances.append(Utterance(f"{i:04d}", path))
    return Corpus("noise", tuple(utterances), "own", "speaker")


def corpus_of(arguments: argparse.Namespace, folder: Path) -> Corpus:
    if not arguments.corpus:
        return recordings(folder, arguments.utterances)
    whole = open_corpus(arguments.corpus, arguments.root)
    step = max(1, len(whole.utterances) // arguments.utterances)
    return Corpus(whole.name, whole.utterances[::step][: arguments.utterances], whole.protocol, whole.unit)


def random_whisper(folder: Path) -> Path:
    config = transformers.WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, decoder_layers=1
    )
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return saved(transformers.WhisperModel(config), folder)


def random_hubert(folder: Path) -> Path:
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return saved(transformers.HubertModel(transformers.HubertConfig()), folder)


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


# Extraction


def extraction(name: str, encoder: Encoder, theirs: Loop, corpus: Corpus, folder: Path, rounds: int) -> str:
    """The row of one encoder: against its own forward pass, and against the loop that people write."""
    device = encoder.device
    info = make_plan(corpus, encoder, folder / "plan", Request("bench", folder), QUIET)
    utterances = {u.id: u for u in corpus.utterances}
    together = list(batches(tuple(utterances), info, encoder, BATCH_SECONDS[device.type]))
    memory = [[encoder.prepare(audio.load(utterances[i])) for i in ids] for ids in together]
    crew = min(CREW["cpu"], Group().cores) if device.type == "cpu" else 1

    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def forward() -> None:
        for inputs in memory:
            encoder.encode(inputs)
        synchronise()

    def forward_by_crew() -> None:
        with ThreadPoolExecutor(crew, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(encoder.encode, memory):
                pass

    def loop() -> None:
        theirs(corpus, fresh(folder / "loop"))

    def ours() -> None:
        extract(corpus, encoder, fresh(folder / "store"), Request("bench", folder), QUIET)

    arms: dict[str, Arm] = {"forward": forward, "loop": loop, "ours": ours}
    if crew > 1:
        arms["crew"] = forward_by_crew
    seconds = take_turns(arms, rounds)
    each = 1000 * statistics.median(seconds["ours"]) / len(utterances)
    by_crew = ratio(seconds, "ours", "crew") if crew > 1 else "–"
    figures = [ratio(seconds, "ours", "forward"), by_crew, ratio(seconds, "loop", "ours"), f"{each:.0f} ms"]
    return f"| {' | '.join([name, *figures])} |"


class Loop:
    """What people write: one file at a time through the feature extractor and `output_hidden_states=True`, saved."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.device = device
        self.extractor = transformers.AutoFeatureExtractor.from_pretrained(name)
        model = transformers.AutoModel.from_pretrained(name, dtype=torch.float32)
        self.whisper = model.config.model_type == "whisper"
        self.model = (model.get_encoder() if self.whisper else model).to(device).eval()

    def __call__(self, corpus: Corpus, folder: Path) -> None:
        for utterance in corpus.utterances:
            wave, rate = soundfile.read(utterance.audio, dtype="float32")
            inputs = self.extractor(wave, sampling_rate=rate, return_tensors="pt").to(self.device)
            with torch.inference_mode():
                states = self.model(**inputs, output_hidden_states=True).hidden_states
            frames = (
                -(-len(wave) // 320) if self.whisper else None
            )  # keeping the whole 30 s would only slow the loop down
            torch.save(torch.stack([s[0, :frames] for s in states]).cpu(), folder / f"{utterance.id}.pt")


def deviation(encoder: Encoder, exact: Encoder, corpus: Corpus) -> float:
    """The largest difference from the exact states, against the root mean square of their layer."""
    worst = 0.0
    for utterance in corpus.utterances[:8]:
        wave = audio.load(utterance)
        (a,), (b,) = (e.encode([e.prepare(wave)]) for e in (encoder, exact))
        scale = b.float().square().mean(dim=(1, 2), keepdim=True).sqrt()
        worst = max(worst, float(((a.float() - b.float()) / scale).abs().max()))
    return worst


# The page


def machine(device: torch.device) -> str:
    cpu = model_of(torch.device("cpu"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    gpu = f", {model_of(device)}" if device.type == "cuda" else ""
    software = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{Group().cores} cores of {cpu}, {memory:.0f} GiB{gpu}; {software}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="a reader's name; default: noise")
    parser.add_argument("--root", type=Path, help="the corpus's folder")
    parser.add_argument("--whisper", help="a folder or hub name; default: random weights in the shape of tiny")
    parser.add_argument("--utterances", type=int, default=48, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    device = torch.device(arguments.device)
    try:
        with tempfile.TemporaryDirectory() as name:
            page = measure(arguments, device, Path(name))
    except UserError as error:
        sys.exit(f"benchmarks/features.py: {error}")
    PAGE.write_text(page, encoding="utf-8")
    print(page, f"\nwritten: {PAGE}", sep="")


def measure(arguments: argparse.Namespace, device: torch.device, folder: Path) -> str:
    torch.manual_seed(0)
    corpus = corpus_of(arguments, fresh(folder / "recordings"))
    whisper = arguments.whisper or str(random_whisper(folder / "whisper"))
    hubert = str(random_hubert(folder / "hubert"))
    base = load_encoder(hubert, device)
    rows = []

    real = load_encoder(whisper, device, real_length=True)
    name = Path(arguments.whisper).name if arguments.whisper else "Whisper tiny"
    half = load_encoder(hubert, device, precision="bfloat16")
    over_whisper, over_hubert = Loop(whisper, device), Loop(hubert, device)
    for row, encoder, theirs in (
        (f"{name}, exact 30 s", load_encoder(whisper, device), over_whisper),
        (f"{name}, real length", real, over_whisper),
        ("HuBERT base", base, over_hubert),
        ("HuBERT base, bfloat16", half, over_hubert),
    ):
        print(f"{row} …", file=sys.stderr, flush=True)
        rows.append(extraction(row, encoder, theirs, corpus, folder, arguments.rounds))
    print("reading …", file=sys.stderr, flush=True)
    over_hubert(corpus, fresh(folder / "loop"))
    store = extract(corpus, base, fresh(folder / "store"), Request("bench", folder), QUIET)
    read = reading(store, folder / "loop", arguments.rounds)
    streamed = streaming(folder / "large", LARGE, ALLOWED)
    seconds = sum(audio.duration(u) for u in corpus.utterances)
    made = f"{len(corpus.utterances)} utterances of {corpus.name}, {seconds / 60:.1f} min"
    return PAGE_TEXT.format(
        command=" ".join(["python", "benchmarks/features.py", *words(arguments)]),
        machine=machine(device),
        date=date.today().isoformat(),
        commit=commit(),
        made=made,
        rounds=arguments.rounds,
        whisper=f"{name} with its own weights," if arguments.whisper else "Whisper tiny and",
        extraction="\n".join(rows),
        reading="\n".join(read),
        streaming=streamed,
        bfloat16=f"{deviation(half, base, corpus):.3f}",
        batch=BATCH,
    )


def words(arguments: argparse.Namespace) -> list[str]:
    """The words of the command, each path by its last name alone: the page shows no folders of this machine."""
    given = [("corpus", arguments.corpus), ("root", arguments.root), ("whisper", arguments.whisper)]
    named = [f"--{name} {Path(str(value)).name}" for name, value in given if value]
    return [
        *named,
        f"--utterances {arguments.utterances}",
        f"--rounds {arguments.rounds}",
        f"--device {arguments.device}",
    ]


def commit() -> str:
    words = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=PAGE.parent)
    return done.stdout.strip() or "unknown"


PAGE_TEXT = """# Features: extraction and reading

`{command}`, {date}, commit {commit}, on {machine}.
{made}; {whisper} HuBERT base with random weights; all hidden states kept.
Medians over {rounds} rounds in which the arms took turns, with the lowest and highest; loading is not timed.

## Extraction

| encoder | our time, forward = 1 | our time, forward by the crew = 1 | the loop's time, ours = 1 | ours, an utterance |
| --- | --- | --- | --- | --- |
{extraction}

Our time is the whole of `extract`: hashing the recordings, decoding, the encoder, float16, checksums, shards written
and read back. Forward: the encoder over the same batches, prepared and in memory, each on all cores; by the crew: the
same in the way of `extract`, a batch a thread. The loop: one file at a time through soundfile, the feature extractor
and the model with `output_hidden_states=True`, the real frames saved with `torch.save` in float32. Beside Whisper's
real length stands the loop over 30 s, beside bfloat16 the loop in float32. The largest difference that bfloat16 makes
to a value of HuBERT base is {bfloat16} of its layer's root mean square.

## Reading

Random batches of {batch} utterances from the shards of HuBERT base.

| what | our speed, the other way = 1 |
| --- | --- |
{reading}

{streaming}
"""


if __name__ == "__main__":
    main()
