"""Read an utterance as a 16 kHz mono wave. soundfile decodes, scipy resamples, pyloudnorm measures loudness."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Thread

import numpy as np
import numpy.typing as npt
import soundfile
from pyloudnorm import Meter
from scipy.signal import resample_poly

from bas.corpora import Utterance
from bas.errors import UserError
from bas.speech.container import Sound, sound_of, streams_of

SAMPLE_RATE = 16_000
SLACK = 0.05  # seconds: annotated end times are often rounded up to the next centisecond
UNKNOWN = 2**63 - 1  # frames that libsndfile reports for a FLAC file that was written to a pipe
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz: below, no speech is left; above, no converter works
DENSEST = 5_000  # samples a byte: more than any format reaches even with silence
GATING_BLOCK = 6_400  # samples: the 400 ms of ITU-R BS.1770
PEAK = 0.25  # -12 dB full scale: a recording's peak is scaled to it before its loudness is measured
LOUDEST = 8.0  # as a peak, of full scale: beyond are integers that were stored as floating-point numbers
BLOCK = 2**10  # frames that are decoded at a time: of a block that cannot be decoded to its end, nothing is
IN_HEADER = frozenset(("WAV", "WAVEX", "RF64", "W64", "AIFF", "SVX", "AU", "CAF", "NIST"))
"""Formats whose header says how much sound follows (see `sound_of`); names as libsndfile has them."""
IN_DECODING = frozenset(("FLAC", "MP3", "OGG", "SDS", "HTK"))
"""Formats that libsndfile refuses, or does not decode to their end, where they are cut off."""
READ_ON = frozenset(("W64", "SVX", "NIST"))  # libsndfile takes what lies behind their sound for more of it
PACKETS = ("ALAC", "MPEG")  # codecs of which so many bytes are not so many samples
NO_END = "its last page is missing or cut off"
REMEDY = "get the recording anew, or take what is there with --accept-truncated"
LARGEST_FACTOR = 100_000  # by which a rate is raised or lowered
ZERO_CROSSINGS, ROLLOFF = 6, 0.99  # of the resampler's filter, as torchaudio has them
Wave = npt.NDArray[np.float32]


def duration(utterance: Utterance) -> float:
    """Seconds of the utterance, from the file's header; decoded where that only estimates it. UserError as in `load`,
    as far as a header shows it.
    """
    part = _part(utterance)
    return (part.stop - part.start) / part.of.rate


def is_cut(utterance: Utterance) -> bool:
    """Whether the recording breaks off, and is taken nonetheless (`Utterance.truncated`)."""
    if not utterance.truncated:
        return False
    try:
        part = _part(utterance)
        whole = _part(replace(utterance, truncated=False))
    except UserError:
        return True
    return part.stop + SLACK * part.of.rate < whole.stop


def fingerprint(utterance: Utterance, seconds: float | None = None) -> str | None:
    """A hash of the utterance's samples, channels averaged, and rate: equal for equal sound, whatever the file's name
    or lossless format. None where it cannot be decoded. Two silent utterances differ: silence identifies nothing.

    seconds: of that much at its beginning, where silence is taken as what it is, and of the length of the whole.
    """
    try:
        part = _part(utterance)
        whole = 0 if seconds is None else part.stop - part.start
        if seconds is not None:
            part = replace(part, stop=min(part.stop, part.start + round(seconds * part.of.rate)))
        mono = _decode(part)
    except (UserError, soundfile.SoundFileError, RuntimeError, MemoryError):
        return None
    mono = mono + np.float32(0)  # a minus zero becomes zero
    alone = utterance.id if seconds is None and _is_silent(mono) else ""
    return hashlib.sha256(repr((part.of.rate, mono.size, whole, alone)).encode() + mono.tobytes()).hexdigest()


def load(utterance: Utterance) -> Wave:
    """The utterance as `(samples,)` float32 at 16 kHz, channels averaged, full scale 1.0.

    Raises UserError naming the file when it cannot be read, is empty, ends before the utterance does, breaks off before
    its header says (unless `utterance.truncated`), or holds NaN.
    """
    return listen(utterance)[0]


def listen(utterance: Utterance) -> tuple[Wave, str]:
    """The wave of `load`, and what is odd of its level: "silent" where all samples are one value, "loud" where the peak
    is beyond LOUDEST, else "".
    """
    part = _part(utterance)
    try:
        wave = _decode(part)
        if len(wave) + SLACK * part.of.rate < part.stop - part.start and not utterance.truncated:
            raise _breaks_off(utterance, part.start + len(wave), part.stop, part.of.rate)
        if not wave.size:
            raise UserError(f"{utterance.audio}: {utterance.id} holds no samples")
        if not np.isfinite(wave).all():
            raise UserError(f"{utterance.audio}: {utterance.id} holds NaN or infinite samples")
        level = "silent" if _is_silent(wave) else "loud" if np.abs(wave).max() > LOUDEST else ""
        return resample(wave, part.of.rate), level
    except (soundfile.SoundFileError, RuntimeError) as error:
        there = _decodable(utterance.audio)
        if 0 < there < part.stop:
            raise _breaks_off(utterance, there, part.stop, part.of.rate) from error
        raise _unreadable(utterance, error) from error
    except MemoryError as error:
        raise _too_large(utterance, part.start, part.stop, part.of.rate) from error


def resample(wave: Wave, rate: int) -> Wave:
    """The wave `(samples,)` at `rate` Hz as `(ceil(samples * 16000 / rate),)` at 16 kHz.

    Band-limited interpolation with a Hann-windowed sinc; it equals torchaudio's `Resample` to the last bits, with which
    older features were made. The filter's size is that of the ratio of the rates in lowest terms: where one of them
    exceeds LARGEST_FACTOR, as for 100,003 Hz, the nearest smaller ratio is taken. It is off by less than
    1 / LARGEST_FACTOR (1e-5), as if the recorder's clock were: 0.6 ms a minute at most.
    """
    if rate == SAMPLE_RATE:
        return np.asarray(wave, dtype=np.float32)
    up, down, filter_K = _filter(rate)
    return np.asarray(resample_poly(wave.astype(np.float64), up, down, window=filter_K), dtype=np.float32)


def to_loudness(wave: Wave, target: float = -23.0) -> Wave:
    """The wave `(samples,)` at 16 kHz, scaled so that its gated loudness (ITU-R BS.1770-4) is `target`, in LUFS.

    Never clipped: samples may exceed 1.0. A wave shorter than one gating block of 400 ms is repeated to fill one before
    it is measured. The recording's level does not matter: the absolute gate (-70 LUFS) is applied with the peak at
    -12 dB full scale. The filters are pyloudnorm's, some 0.1 LU below the standard's own coefficients.
    Raises UserError for silence; the caller knows the utterance and puts its name before the message.
    """
    peak = float(np.abs(wave).max(initial=0.0))
    level = -np.inf
    if peak > 0:
        repeated = np.tile(wave, -(-GATING_BLOCK // wave.size)).astype(np.float64) * (PEAK / peak)
        level = Meter(SAMPLE_RATE).integrated_loudness(repeated) - 20 * math.log10(PEAK / peak)
    if not np.isfinite(level):  # where no block passes the gate
        raise UserError(f"silence: no gain brings it to {target:g} LUFS")
    return np.asarray(wave * 10 ** ((target - level) / 20), dtype=np.float32)


def ratio_of(rate: int) -> Fraction:
    """By how much the rate is above 16 kHz; see `resample`."""
    ratio = Fraction(rate, SAMPLE_RATE)
    if ratio.numerator <= LARGEST_FACTOR:  # the denominator is 16,000 at most
        return ratio
    return 1 / (1 / ratio).limit_denominator(LARGEST_FACTOR)


@lru_cache(maxsize=8)
def _filter(rate: int) -> tuple[int, int, npt.NDArray[np.float64]]:
    """The factors by which the rate is raised and then lowered, and the filter in between, `(K,)` of unit gain."""
    ratio = ratio_of(rate)
    up, down = ratio.denominator, ratio.numerator
    cutoff = ROLLOFF * min(up, down)
    reach = math.ceil(ZERO_CROSSINGS * down / cutoff) * up
    # Each tap belongs to one output phase and one input sample. torchaudio rounds phases to float32, which changes
    # 44.1 kHz recordings by 1e-5 of full scale. We do the same, so that features equal those in older stores.
    tap_K = np.arange(-reach, reach + 1)
    phase_K = tap_K * pow(down, -1, up) % up
    seconds_K = (phase_K * down - tap_K) // up / down - (phase_K / up).astype(np.float32)
    t_K = np.clip(seconds_K * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    return up, down, np.sinc(t_K) * np.cos(np.pi * t_K / ZERO_CROSSINGS / 2) ** 2 * cutoff / (up * down)


@dataclass(frozen=True)
class _Recording:
    """What `soundfile` and the file's own bytes say of a recording; frames are samples of each channel."""

    rate: int
    channels: int
    frames: int  # as the header promises
    there: int  # as the file has, as far as the header and the file's size show it
    spans: tuple[tuple[int, int], ...] = ()  # bytes of streams that are decoded one after the other; (): the whole file
    patched: Sound | None = None  # the header is corrected before libsndfile reads it
    broken: str = ""  # where the format shows that the end is missing, but not how much
    behind: int = 0  # as frames, the bytes that follow what the header promises, and may be sound


@dataclass(frozen=True)
class _Part:
    """The utterance's first frame, and the one after its last."""

    path: Path
    of: _Recording
    start: int
    stop: int
    tolerant: bool  # of an end that cannot be decoded


def _part(utterance: Utterance) -> _Part:
    """UserError: see `load`."""
    try:
        status = utterance.audio.stat()
        of = _recording(utterance.audio, status.st_mtime_ns, status.st_size, utterance.truncated)
    except OSError as error:
        raise UserError(f"{utterance.audio}: cannot be read as audio: {error}") from error
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:  # TypeError: a headerless .raw
        raise _unreadable(utterance, error) from error
    frames, rate = (of.there if utterance.truncated else of.frames), of.rate
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        allowed = f"a sample rate from {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz"
        raise UserError(
            f"{utterance.audio}: its header says {rate:,} Hz; expected {allowed}: correct it, or convert it"
        )
    if frames == UNKNOWN:
        raise UserError(f"{utterance.audio}: its header does not say how long it is; convert it to WAV or FLAC again")
    if frames > DENSEST * status.st_size:
        raise UserError(f"{utterance.audio}: its header says {frames / rate:,.0f} s, which the file is too small for")
    start = round(utterance.start * rate)
    stop = frames if utterance.end is None else round(utterance.end * rate)
    if stop > frames + SLACK * rate + (0 if utterance.truncated else of.behind):
        length = frames / rate
        raise UserError(f"{utterance.audio}: {utterance.id} ends at {utterance.end} s but the file has {length:.2f} s")
    if of.behind > SLACK * rate and not utterance.truncated and (utterance.end is None or stop > frames):
        raise _goes_on(utterance, of)
    stop = min(stop, frames)
    if stop > of.there + SLACK * rate:
        raise _breaks_off(utterance, of.there, stop, rate)
    if of.broken and not utterance.truncated and stop + SLACK * rate > of.there:
        raise UserError(
            f"{utterance.audio}: {utterance.id} breaks off after {of.there / rate:.2f} s: {of.broken}; {REMEDY}"
        )
    stop = min(stop, of.there)
    if not 0 <= start < stop:
        raise UserError(f"{utterance.audio}: {utterance.id} holds no samples")
    # In float32 by channel, then averaged, and in float64 before and after it is resampled.
    if (stop - start) * (4 * of.channels + 12 + 12 * SAMPLE_RATE / rate) > _memory():
        raise _too_large(utterance, start, stop, rate)
    return _Part(utterance.audio, of, start, stop, utterance.truncated)


def _is_silent(wave: Wave) -> bool:
    return bool(wave.size) and bool((wave == wave[0]).all())


def _breaks_off(utterance: Utterance, there: int, stop: int, rate: int) -> UserError:
    message = f"breaks off after {there / rate:.2f} of {stop / rate:.2f} s: truncated? {REMEDY}"
    return UserError(f"{utterance.audio}: {utterance.id} {message}")


def _goes_on(utterance: Utterance, of: _Recording) -> UserError:
    said, there = of.frames / of.rate, (of.frames + of.behind) / of.rate
    message = f"its header says {said:.2f} s, but {there:.2f} s lie there: correct it, or take what it says"
    return UserError(f"{utterance.audio}: {utterance.id}: {message} with --accept-truncated")


def _unreadable(utterance: Utterance, error: Exception) -> UserError:
    reason = str(error).removeprefix(f"Error opening {str(utterance.audio)!r}: ").removeprefix("Internal error : ")
    remedy = "get the recording anew, or convert it to WAV or FLAC"
    return UserError(f"{utterance.audio}: cannot be read as audio ({reason.rstrip('.')}); {remedy}")


def _too_large(utterance: Utterance, start: int, stop: int, rate: int) -> UserError:
    message = f"it is {(stop - start) / rate:,.0f} s long, which does not fit into memory; cut it (start, end)"
    return UserError(f"{utterance.audio}: {utterance.id}: {message}")


@lru_cache(maxsize=1)
def _memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@lru_cache(maxsize=2**16)
def _recording(path: Path, changed: int, size: int, tolerant: bool) -> _Recording:
    """What is known of a file, read once for the many segments of one recording unless the file has changed.

    tolerant: what can be decoded counts, and what the header promises beyond it does not.
    """
    sound, patched = sound_of(path), None
    # libsndfile takes a header that says 0 at its word, and refuses a CAF file without its end.
    unsure = sound is not None and bool(sound.at) and sound.there > 0 and (sound.promised is None or sound.cut)
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError:
        if not unsure:
            raise
        info = None
    read_on = info is not None and info.format in READ_ON and sound is not None and sound.goes_on
    if read_on or (unsure and (info is None or info.frames == 0)):
        patched = sound
        info = soundfile.info(_source(path, sound))
    constant = not info.subtype.startswith("DWVW")  # so many bytes are so many samples, or a table says how many
    if not (constant and (info.format in IN_DECODING or (info.format in IN_HEADER and sound))):
        name = info.format if constant else f"{info.format} with {info.subtype}"
        raise UserError(f"{path}: {name}: how long it should be cannot be told; convert it to WAV or FLAC")
    rate, channels, frames = int(info.samplerate), int(info.channels), int(info.frames)
    if sound and not sound.there:
        frames = 0
    elif sound and info.subtype.startswith(PACKETS) and (sound.cut or sound.promised is None):
        there = _decodable(path, patched)
        return _Recording(rate, channels, max(sound.frames or frames, there), there, patched=patched)
    elif sound and sound.cut:
        assert sound.promised is not None
        there = min(frames, _decodable(path, patched)) if tolerant else frames
        return _Recording(rate, channels, round(frames * sound.promised / sound.there), there, patched=patched)
    elif sound and sound.behind:
        assert sound.promised is not None
        behind = round(frames * sound.behind / sound.promised)
        return _Recording(rate, channels, frames, frames, patched=patched, behind=behind)
    streams = streams_of(path, info.format)
    if streams and (info.format == "MP3" or len(streams.spans) > 1):
        frames = sum(len(block) for block in _piped(path, streams.spans, rate))
        return _Recording(rate, channels, frames, frames, streams.spans, broken="" if streams.whole else NO_END)
    # In other formats only decoding shows where they break off.
    there = min(frames, _decodable(path)) if tolerant and sound is None and frames != UNKNOWN else frames
    broken = NO_END if streams and not streams.whole else ""
    return _Recording(rate, channels, frames, there, patched=patched, broken=broken)


def _decode(part: _Part) -> Wave:
    """The part's samples at the file's own rate, `(frames,)`, channels averaged; fewer where they break off."""
    if part.of.spans:
        return _cut_out(_piped(part.path, part.of.spans, part.of.rate), part.start, part.stop)
    try:
        source = _source(part.path, part.of.patched)
        wave, _ = soundfile.read(source, start=part.start, stop=part.stop, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError):
        if not part.tolerant:
            raise
        return _cut_out(_until_broken(part.path, part.of.patched), part.start, part.stop)
    return np.asarray(wave.mean(axis=1))


def _cut_out(blocks: Iterator[Wave], start: int, stop: int) -> Wave:
    kept, position = [], 0
    for block in blocks:
        kept.append(block[max(0, start - position) : max(0, stop - position)])
        position += len(block)
        if position >= stop:
            break
    return np.concatenate(kept) if kept else np.zeros(0, np.float32)


def _source(path: Path, patched: Sound | None) -> Path | BytesIO:
    return path if patched is None else BytesIO(patched.corrected(path.read_bytes()))


def _decodable(path: Path, patched: Sound | None = None) -> int:
    """How many frames can be decoded."""
    return sum(len(block) for block in _until_broken(path, patched))


def _until_broken(path: Path, patched: Sound | None = None) -> Iterator[Wave]:
    """The file's samples, channels averaged, up to the first block that cannot be decoded."""
    try:
        with soundfile.SoundFile(_source(path, patched)) as file:
            # Of a broken ALAC file libsndfile repeats the last packet for every read that follows: there is only one.
            at_once = len(file) if file.subtype.startswith("ALAC") else BLOCK
            while len(block := file.read(at_once, dtype="float32", always_2d=True)):
                yield block.mean(axis=1)
                if len(block) < at_once:
                    return
    except (soundfile.SoundFileError, RuntimeError):
        return


def _piped(path: Path, spans: Sequence[tuple[int, int]], rate: int) -> Iterator[Wave]:
    """The samples of these streams, one after the other, channels averaged.

    Through a pipe libsndfile decodes to the end, where it cannot look for a length. UserError where a stream has
    another rate than the first.
    """
    for begin, end in spans:
        reading, writing = os.pipe()
        feeder = Thread(target=_feed, args=(path, begin, end, writing), daemon=True)
        feeder.start()
        try:
            with soundfile.SoundFile(reading, closefd=False) as file:
                if file.samplerate != rate:
                    raise UserError(f"{path}: one stream in it has {rate} Hz, another {file.samplerate} Hz; convert it")
                while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                    yield block.mean(axis=1)
        finally:
            os.close(reading)
            feeder.join()


def _feed(path: Path, begin: int, end: int, writing: int) -> None:
    with suppress(OSError), os.fdopen(writing, "wb") as pipe, path.open("rb") as file:  # the reader may have enough
        file.seek(begin)
        while begin < end and (some := file.read(min(2**16, end - begin))):
            pipe.write(some)
            begin += len(some)
