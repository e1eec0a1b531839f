"""espeak-ng's C interface, the part of it that the demo corpus uses (speak_lib.h), by ctypes.

The library carries the phases of its oscillators and its random numbers from one utterance to the next, so each
utterance is spoken by a freshly loaded library with its own seed. It is GPL-3.0: nothing else loads it.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from bas.errors import UserError

RATE_HZ = 16_000


@dataclass(frozen=True)
class Line:
    """What espeak-ng needs to say an utterance."""

    text: str
    voice: str
    pitch: int  # espeak-ng's 0 to 99
    range: int  # espeak-ng's 0 to 99
    rate_wpm: int
    seed: int


class _Value(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Value),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_SYNCHRONOUS = 2  # of espeak_AUDIO_OUTPUT
_DONT_EXIT = 0x8000  # of espeak_Initialize's options: return an error rather than end the process
_CHARACTERS, _UTF8 = 1, 1
_LIST_END, _WORD, _END = 0, 1, 5  # of espeak_EVENT_TYPE
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # of espeak_PARAMETER


def find() -> tuple[str, str]:
    """The paths of espeak-ng's shared library and of its data."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError("the demo corpus is spoken by espeak-ng (GPL-3.0): pip install 'bas[demo]'") from None
    library, data = str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())
    try:
        loaded = ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return library, data
    _ctypes.dlclose(loaded._handle)
    raise UserError(f"{library}: loaded in this process already; the demo corpus needs it new for each utterance")


def speak(library: str, data: Path, s: Line) -> tuple[npt.NDArray[np.float64], list[tuple[float, float, str]]]:
    """The samples of one utterance (16 kHz, full scale 1) and its words as (start, end, text), in seconds."""
    try:
        lib = ctypes.CDLL(library)
    except OSError as e:
        raise UserError(f"{library}: cannot be loaded: {e}") from None
    try:
        return _speak_with(lib, data, s)
    finally:
        lib.espeak_Terminate()
        _ctypes.dlclose(lib._handle)  # unloads it: the next utterance finds every static variable new


def _speak_with(
    lib: ctypes.CDLL, data: Path, s: Line
) -> tuple[npt.NDArray[np.float64], list[tuple[float, float, str]]]:
    chunks: list[npt.NDArray[np.int16]] = []
    events: list[tuple[int, int, int]] = []

    def collect(wav: Any, n: int, event: Any) -> int:
        if wav and n > 0:
            chunks.append(np.ctypeslib.as_array(wav, (n,)).copy())
        i = 0
        while event[i].type != _LIST_END:
            events.append((event[i].type, event[i].text_position, event[i].audio_position))
            i += 1
        return 0

    rate = lib.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data), _DONT_EXIT)
    if rate <= 0:
        raise UserError(f"{data.resolve()}: espeak-ng finds no usable data there")
    callback = _Callback(collect)  # must live as long as the library may call it
    lib.espeak_SetSynthCallback(callback)
    lib.espeak_ng_SetRandSeed(ctypes.c_long(s.seed))
    if lib.espeak_SetVoiceByName(s.voice.encode()) != 0:
        raise UserError(f"{data.resolve()}: espeak-ng has no voice {s.voice!r}")
    for parameter, value in ((_RATE, s.rate_wpm), (_VOLUME, 100), (_PITCH, s.pitch), (_RANGE, s.range)):
        status = lib.espeak_SetParameter(parameter, value, 0)
        assert status == 0, (s, parameter, status)
    text = s.text.encode()
    size, position, end = ctypes.c_size_t(len(text) + 1), ctypes.c_uint(0), ctypes.c_uint(0)
    status = lib.espeak_Synth(text, size, position, _CHARACTERS, end, ctypes.c_uint(_UTF8), None, None)
    assert status == 0, (s, status)
    assert chunks, s

    samples = resample_poly(np.concatenate(chunks) / 2**15, RATE_HZ, rate)
    # A word lasts until the next one starts, the last until the end. espeak-ng may say two as one ("on the").
    starts = [(at, ms) for kind, at, ms in events if kind == _WORD]
    stop = (len(s.text) + 1, max(ms for kind, _, ms in events if kind == _END))
    words = [
        (ms / 1000, next_ms / 1000, s.text[at - 1 : next_at - 1].strip(" .,"))
        for (at, ms), (next_at, next_ms) in zip(starts, [*starts[1:], stop], strict=True)
    ]
    return samples, words
