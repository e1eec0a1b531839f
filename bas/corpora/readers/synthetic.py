"""The demo corpus: a little emotional speech synthesised by espeak-ng, for `make demo` and the tests.

It needs no network and no data, takes seconds, and is no evidence about real emotion: a model that does
well here has found the rules below and nothing else. Ten speakers (voice variants of espeak-ng with their
own pitch, rate and loudness) say twelve neutral sentences in four emotions.

The emotions are prosody rules in the directions of the literature:

- I. R. Murray and J. L. Arnott (1993), "Toward the simulation of emotion in synthetic speech: a review of
  the literature on human vocal emotion", JASA 93(2), 1097-1108, the summary table of vocal emotion effects:
  anger is slightly faster, very much higher, of much wider range and louder; happiness faster or slower,
  much higher, of much wider range and louder; sadness slightly slower, slightly lower, of slightly
  narrower range and softer.
- F. Burkhardt and W. F. Sendlmeier (2000), "Verification of acoustical correlates of emotional speech
  using formant-synthesis", ISCA Workshop on Speech and Emotion: such rules are recognised by listeners.
- M. Schröder (2001), "Emotional speech synthesis: a review", Eurospeech: the rules of the systems compared.

The directions are theirs; the sizes in `RULES` are ours, as is the spectral tilt that stands for the tense
voice of anger and the lax voice of sadness. Each utterance applies its rule at a random
intensity, jitters every parameter and is recorded at a random gain over random noise, so that the emotions
overlap: a linear model on the mean log-mel spectrum is well above chance and well below perfect, and
there is more to learn from the course of the utterance (pitch range and rate) than from its mean.

espeak-ng is GPL-3.0 and no dependency of this package: it comes with `pip install 'bas[demo]'`, and
`bas.corpora.readers.espeak` loads it for `synthesise` alone.
"""

from __future__ import annotations

import io
import json
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import butter, lfilter

from bas.corpora import manifest
from bas.corpora.base import Corpus
from bas.corpora.readers import espeak
from bas.corpora.readers.espeak import RATE_HZ
from bas.errors import UserError
from bas.util.files import locked, replacing, write_text

VERSION = 1  # of the recipe: raise it with any change that changes a wav
MANIFEST = "manifest.jsonl"
NOTE = "synthetic speech (espeak-ng), not real emotion"


@dataclass(frozen=True)
class Rule:
    """What one emotion does at intensity 1: factors on pitch, pitch range and rate, and two gains in dB.

    `loudness_db` is of the whole spectrum, `effort_db` of what lies above about 1 kHz, on top of it: a tense,
    effortful voice has a flatter spectrum, a lax one a steeper.
    """

    pitch: float
    range: float
    rate: float
    loudness_db: float
    effort_db: float


RULES = {
    "anger": Rule(pitch=1.60, range=1.40, rate=1.18, loudness_db=6.0, effort_db=5.0),
    "happiness": Rule(pitch=1.30, range=1.90, rate=0.97, loudness_db=3.0, effort_db=1.0),
    "neutral": Rule(pitch=1.00, range=1.00, rate=1.00, loudness_db=0.0, effort_db=0.0),
    "sadness": Rule(pitch=0.86, range=0.70, rate=0.80, loudness_db=-5.0, effort_db=-5.0),
}

# How much an utterance varies besides its emotion. The first three are standard deviations of a natural log.
INTENSITY = (0.5, 1.0)
PITCH_JITTER = 0.06
RANGE_JITTER = 0.12
RATE_JITTER = 0.06
LOUDNESS_JITTER_DB = 1.5
EFFORT_JITTER_DB = 1.5
EFFORT_HZ = 1_000.0
RECORDING_GAIN_DB = 6.0  # uniform, to both sides
NOISE_DBFS = (-75.0, -60.0)
SILENCE_S = (0.05, 0.15)  # before and after the speech

# Where a speaker starts: espeak-ng's own units, with 50 its default pitch and range.
BASE_RANGE = 50.0
BASE_RATE_WPM = 170.0
BASE_DB = -18.0
SPEAKER_PITCH = 5.0  # uniform, to both sides, as the next two; 50 units are an octave
SPEAKER_RATE_WPM = 15.0
SPEAKER_DB = 2.0

VOICES = (
    "en-us+f1",
    "en-us+m1",
    "en-gb-x-rp+f2",
    "en-gb-x-rp+m2",
    "en-us+f3",
    "en-us+m3",
    "en-gb-scotland+f4",
    "en-gb-scotland+m4",
    "en-us+f5",
    "en-gb-x-rp+m6",
)

SENTENCES = (
    "The kettle stands beside the window.",
    "We moved the chairs this morning.",
    "Her brother works at the station.",
    "The blue folder belongs to Martin.",
    "Seven letters came on Monday.",
    "They walk along the river every day.",
    "I left my keys beside the window.",
    "The bus stops near our garden.",
    "Nobody opened the second door.",
    "He put the tickets in his coat.",
    "It will be ready tomorrow evening.",
    "Please bring another cup.",
)


@dataclass(frozen=True)
class Script(espeak.Line):
    """One utterance to speak: what, by whom, and the numbers drawn for it. Its seed is the noise's too."""

    id: str
    speaker: str
    label: str
    gain_db: float
    effort_db: float
    noise_dbfs: float
    lead_s: float
    tail_s: float


def script(seed: int, speakers: int = len(VOICES), sentences: int = len(SENTENCES)) -> list[Script]:
    """What there is to speak, sorted by id. Every utterance depends on `seed` and its own id alone."""
    scripts = []
    for s in range(speakers):
        speaker = f"spk{s + 1:02d}"
        rng = _rng(seed, speaker)
        base_pitch = 50 + rng.uniform(-SPEAKER_PITCH, SPEAKER_PITCH)
        base_rate = BASE_RATE_WPM + rng.uniform(-SPEAKER_RATE_WPM, SPEAKER_RATE_WPM)
        base_db = BASE_DB + rng.uniform(-SPEAKER_DB, SPEAKER_DB)
        for t in range(sentences):
            for label, rule in RULES.items():
                uid = f"{speaker}-s{t + 1:02d}-{label}"
                rng = _rng(seed, uid)
                intensity = rng.uniform(*INTENSITY)
                pitch = rule.pitch**intensity * np.exp(rng.normal(0, PITCH_JITTER))
                width = rule.range**intensity * np.exp(rng.normal(0, RANGE_JITTER))
                rate = rule.rate**intensity * np.exp(rng.normal(0, RATE_JITTER))
                loudness = rule.loudness_db * intensity + rng.normal(0, LOUDNESS_JITTER_DB)
                scripts.append(
                    Script(
                        id=uid,
                        speaker=speaker,
                        label=label,
                        text=SENTENCES[t],
                        voice=VOICES[s],
                        pitch=_unit(base_pitch + 50 * log2(pitch)),
                        range=_unit(BASE_RANGE * width),
                        rate_wpm=round(base_rate * rate),
                        gain_db=base_db + loudness + rng.uniform(-RECORDING_GAIN_DB, RECORDING_GAIN_DB),
                        effort_db=rule.effort_db * intensity + rng.normal(0, EFFORT_JITTER_DB),
                        noise_dbfs=rng.uniform(*NOISE_DBFS),
                        lead_s=rng.uniform(*SILENCE_S),
                        tail_s=rng.uniform(*SILENCE_S),
                        seed=int(rng.integers(1, 2**31)),
                    )
                )
    return sorted(scripts, key=lambda s: s.id)


def synthesise(
    root: Path,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    speakers: int = len(VOICES),
    sentences: int = len(SENTENCES),
) -> Corpus:
    """Write the demo corpus under `root` and return it: `wav/<id>.wav` (16 kHz, mono, PCM16) and `manifest.jsonl`.

    The same arguments and the same espeak-ng give the same bytes. Where `root` already holds this corpus
    nothing is synthesised; anything less (a killed call, another seed, a missing file) is written again.
    `on_progress` gets the number of utterances done and the number of all after each one. `speakers` and
    `sentences` take the first so many of each.

    Raises `UserError` for a number out of range, and where espeak-ng is not installed, cannot be loaded or is
    in use in this process already, and where another process is writing this corpus.
    """
    for name, value, low, high in (
        ("seed", seed, 0, 2**32 - 1),
        ("speakers", speakers, 1, len(VOICES)),
        ("sentences", sentences, 1, len(SENTENCES)),
    ):
        if not low <= value <= high:
            raise UserError(f"demo corpus: {name} is {value}, allowed is {low} to {high}")
    scripts = script(seed, speakers, sentences)
    wav_dir, listing, recipe = root / "wav", root / MANIFEST, root / "recipe.json"
    signature = json.dumps({"version": VERSION, "seed": seed, "speakers": speakers, "sentences": sentences})
    if (
        listing.exists()
        and recipe.exists()
        and recipe.read_text(encoding="utf-8") == signature
        and all((wav_dir / f"{s.id}.wav").exists() for s in scripts)
    ):
        return read(root)

    library, data = espeak.find()
    with locked(root, "synthesising the demo corpus"), tempfile.TemporaryDirectory(prefix="bas-") as short:
        wav_dir.mkdir(exist_ok=True)
        listing.unlink(missing_ok=True)  # removed first and written last: where it exists, so does all it names
        for stray in wav_dir.glob("spk*.wav.*tmp"):
            stray.unlink()
        link = Path(short) / "espeak-ng-data"  # espeak-ng cuts a data path off at 160 characters
        link.symlink_to(data, target_is_directory=True)
        rows = []
        for done, s in enumerate(scripts, start=1):
            speech, words = espeak.speak(library, link, s)
            raw = io.BytesIO()  # libsndfile does not say why it cannot write a file
            soundfile.write(raw, _record(speech, s), RATE_HZ, subtype="PCM_16", format="WAV")
            with replacing(wav_dir / f"{s.id}.wav") as part:
                part.write_bytes(raw.getvalue())
            rows.append(
                {
                    "id": s.id,
                    "audio": f"wav/{s.id}.wav",
                    "label": s.label,
                    "speaker": s.speaker,
                    "language": "en",
                    "text": s.text,
                    "words": [[round(s.lead_s + a, 3), round(s.lead_s + b, 3), text] for a, b, text in words],
                }
            )
            if on_progress is not None:
                on_progress(done, len(scripts))
        write_text(recipe, signature)
        write_text(listing, "".join(json.dumps(row) + "\n" for row in rows))
    return read(root)


def read(root: Path) -> Corpus:
    """The corpus that `synthesise` wrote under `root`. Raises `UserError` where there is none."""
    corpus = manifest.read(root / MANIFEST)
    return replace(corpus, name="demo", protocol="speaker:5", unit="speaker", note=NOTE)


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _unit(x: float) -> int:
    """`x` as one of espeak-ng's values from 0 to 99."""
    return min(99, max(0, round(x)))


def _record(speech: npt.NDArray[np.float64], s: Script) -> npt.NDArray[np.float64]:
    """The speech as recorded: vocal effort, silence around it, gain, and white noise."""
    b, a = butter(1, EFFORT_HZ, "highpass", fs=RATE_HZ)
    speech = speech + (10 ** (s.effort_db / 20) - 1) * lfilter(b, a, speech)
    lead, tail = (np.zeros(round(x * RATE_HZ)) for x in (s.lead_s, s.tail_s))
    wav = np.concatenate([lead, speech, tail]) * 10 ** (s.gain_db / 20)
    wav += np.random.default_rng(s.seed).normal(0, 10 ** (s.noise_dbfs / 20), len(wav))
    return np.clip(wav, -1, 1)
