"""The speech that `bas-hubert-nano` learns from: LibriSpeech's, and what espeak-ng says in many languages and voices.

An item is one utterance, defined by its number: its words, its voice and its augmentation depend only on the seed and
that number, so any process can make any part. A part is one file of `PART` items; existing parts are kept.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from augment import augment

from bas.corpora import Utterance
from bas.corpora.readers import espeak
from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE, Wave, load
from bas.util.files import replacing

PART = 200  # items
NAME = re.compile(r"\d+-\d+-\d+")  # of a recording of LibriSpeech: speaker, chapter, number
LONGEST = 12.0  # seconds of a recording; what is longer is cut, before it is made slower or faster
# LibriSpeech speakers and espeak items whose number this divides are never trained on. (K-means, and the mean and
# deviation of a teacher's states, see their frames too.)
HELD_OUT = 20

# espeak-ng's voice and the locale whose names (of countries, languages, currencies, months) it is given to say: the
# Unicode consortium's lists, in Babel, are the words at hand in so many languages under a free licence.
LANGUAGES = {
    "af": "af", "ar": "ar", "az": "az", "bg": "bg", "bn": "bn", "ca": "ca", "cmn": "zh", "cs": "cs", "cy": "cy",
    "da": "da", "de": "de", "el": "el", "en-gb-x-rp": "en_GB", "en-us": "en", "es": "es", "es-419": "es_419",
    "et": "et", "eu": "eu", "fa": "fa", "fi": "fi", "fr": "fr", "ga": "ga", "hi": "hi", "hr": "hr", "hu": "hu",
    "hy": "hy",
    "id": "id", "is": "is", "it": "it", "ka": "ka", "kk": "kk", "ko": "ko", "lt": "lt", "lv": "lv", "ms": "ms",
    "nb": "nb", "nl": "nl", "pl": "pl", "pt": "pt_PT", "pt-br": "pt", "ro": "ro", "ru": "ru", "sk": "sk", "sl": "sl",
    "sq": "sq", "sr": "sr", "sv": "sv", "sw": "sw", "ta": "ta", "te": "te", "tr": "tr", "uk": "uk", "vi": "vi",
}  # fmt: skip
# Variants of espeak-ng that sound like people, more or less; the robots are left out.
VARIANTS = """
    Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed
    adam anika announcer antonio aunty belinda benjamin boris caleb croak david ed edward f1 f2 f3 f4 f5 grandma
    grandpa gustave ian iven john klatt klatt2 klatt3 klatt4 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel
    norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 travis victor whisper whisperf zac
""".split()  # noqa: SIM905
ENDINGS = (".", ".", ".", "?", "!", "...")


@dataclass(frozen=True)
class Pool:
    """What there is to say. variants: how often each LibriSpeech utterance comes, the first time as it is."""

    recordings: tuple[Path, ...]
    variants: int
    spoken: int
    seed: int

    def __len__(self) -> int:
        return len(self.recordings) * self.variants + self.spoken

    @property
    def parts(self) -> int:
        return -(-len(self) // PART)

    def held_out(self, item: int) -> bool:
        """Whether the item is for validation: by its speaker, or for espeak-ng by its number."""
        if item < len(self.recordings) * self.variants:
            return int(speaker(self.recordings[item % len(self.recordings)])) % HELD_OUT == 0
        return item % HELD_OUT == 0

    def make(self, item: int) -> Wave:
        """The item's samples, at 16 kHz."""
        rng = np.random.default_rng([self.seed, item])
        again, which = divmod(item, len(self.recordings))
        if again < self.variants:
            path = self.recordings[which]
            wave = load(Utterance(id=path.stem, audio=path))
        else:
            wave = speak(rng)
        start = rng.integers(max(1, wave.size - int(LONGEST * SAMPLE_RATE)))
        wave = wave[start : start + int(LONGEST * SAMPLE_RATE)]
        # Held-out speech is judged as it was recorded.
        return wave if again == 0 or self.held_out(item) else augment(wave, rng)


def pool(folder: Path, listed: Path, variants: int, spoken: int, seed: int) -> Pool:
    """listed: the names of LibriSpeech's recordings, one a line, that are somewhere in the folder; in this order.

    Raises UserError if a name is not of this form, is listed twice or has no recording.
    """
    try:
        names = listed.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{listed}: cannot be read: {error}") from error
    wrong = [name for name in names if not NAME.fullmatch(name) or names.count(name) > 1]
    if wrong or not names:
        where = f"{wrong[0]!r}: " if wrong else ""
        raise UserError(f"{listed}: {where}expected names as 1688-142285-0000, one a line, each once")
    there = {path.stem: path for path in folder.rglob("*.flac")}
    if missing := [name for name in names if name not in there]:
        message = (
            f"{len(missing)} of the {len(names)} recordings of {listed.name} are not here, {missing[0]}.flac the first"
        )
        raise UserError(f"{folder}: {message}; name LibriSpeech's folder, or other --recordings")
    return Pool(tuple(there[name] for name in names), variants, spoken, seed)


def speaker(recording: Path) -> str:
    return recording.stem.split("-")[0]


def speak(rng: np.random.Generator) -> Wave:
    """Some names, said by espeak-ng in one of its languages and voices, at some pitch, pitch range and rate."""
    voice = str(rng.choice(sorted(LANGUAGES)))
    names = _names(LANGUAGES[voice])
    chosen = [names[i] for i in rng.integers(len(names), size=rng.integers(3, 9))]
    joined = "".join(f"{', ' if i and rng.random() < 0.25 else ' '}{name}" for i, name in enumerate(chosen))
    line = espeak.Line(
        text=joined.strip() + str(rng.choice(ENDINGS)),
        voice=f"{voice}+{rng.choice(VARIANTS)}",
        pitch=int(rng.integers(10, 95)),
        range=int(rng.integers(5, 99)),
        rate_wpm=int(rng.integers(110, 270)),
        seed=int(rng.integers(1, 2**31)),
    )
    library, data = espeak.find()
    with tempfile.TemporaryDirectory(prefix="nano-") as short:
        link = Path(short) / "espeak-ng-data"  # espeak-ng cuts a data path off at 160 characters
        link.symlink_to(data, target_is_directory=True)
        samples, _ = espeak.speak(library, link, line)
    return samples.astype(np.float32)


@cache
def _names(locale: str) -> list[str]:
    from babel import Locale

    known = Locale.parse(locale)
    tables = (known.territories, known.languages, known.currencies)
    names = {name for table in tables for name in table.values()}
    names |= {name for width in known.months["format"].values() for name in width.values()}
    return sorted(n for n in names if 3 <= len(n) <= 30 and not any(c in n for c in "()0123456789&/–"))


def make_part(pool: Pool, part: int, file: Path) -> None:
    """Write the items of the part: their samples one behind the other, and how many each has."""
    torch.set_num_threads(1)
    waves = [pool.make(item) for item in range(part * PART, min((part + 1) * PART, len(pool)))]
    peaks = [max(float(np.abs(wave).max(initial=0.0)), 1e-4) for wave in waves]
    samples = [np.round(wave / peak * 0.99 * 32767).astype(np.int16) for wave, peak in zip(waves, peaks, strict=True)]
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, samples=np.concatenate(samples), lengths=np.array([s.size for s in samples]))


def make_speech(pool: Pool, folder: Path, workers: int, on_part: Callable[[int], None]) -> list[Path]:
    """All parts; `workers` processes make those that are missing. on_part: called with the number of items of each."""
    files = [folder / f"speech-{part:04d}.npz" for part in range(pool.parts)]
    sizes = [min(PART, len(pool) - part * PART) for part in range(pool.parts)]
    for file, size in zip(files, sizes, strict=True):
        if file.exists():
            on_part(size)
    missing = {part: (pool, part, file) for part, file in enumerate(files) if not file.exists()}
    in_processes(make_part, missing, workers, lambda part: on_part(sizes[part]))
    return files


def in_processes(
    call: Callable[..., None], given: Mapping[int, tuple[Any, ...]], workers: int, done: Callable[[int], None]
) -> None:
    """`call` of each key's arguments, in so many processes. An error, or Ctrl-C, begins no more of them.

    Those at work are waited for: what they write is not lost.
    """
    # Not forked: threads of torch and of the progress bar are at work here.
    spawn = get_context("spawn")
    processes = ProcessPoolExecutor(workers, spawn, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        keys = {processes.submit(call, *arguments): key for key, arguments in given.items()}
        for future in as_completed(keys):
            future.result()
            done(keys[future])
    except KeyboardInterrupt:
        print("nano: stopping when the parts at work are whole", file=sys.stderr)
        raise
    finally:
        processes.shutdown(cancel_futures=True)


def read_part(file: Path) -> list[npt.NDArray[np.int16]]:
    """The items of a part, as they were written."""
    with np.load(file) as there:
        samples, lengths = there["samples"], there["lengths"]
    return np.split(samples, np.cumsum(lengths)[:-1])


def to_wave(samples: npt.NDArray[np.int16]) -> Wave:
    return samples.astype(np.float32) / 32768
