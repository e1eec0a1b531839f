"""What an audio file's own bytes say of its length, where libsndfile takes what is there for all that there was.

`sound_of`: the bytes of sound that the header of a WAV (RIFX, RF64, BW64, extensible), W64, AIFF, AIFF-C, 8SVX, AU, CAF
or NIST SPHERE file promises, and those that the file has. libsndfile corrects the first by the second without a word,
leaves out what lies behind the first, or takes the chunks there for sound.

`streams_of`: where the streams of an MP3 or Ogg file lie that libsndfile would not decode to their end. It takes an
MP3's length from the first frame, which says it (Xing) or gives a bit rate to guess it by, and reads the first
of several Ogg streams.

References
    EBU Tech 3306 (RF64); Apple, *Core Audio Format Specification*; ISO/IEC 11172-3, 2.4 (the header of a frame).
    RFC 3533, section 6 (the Ogg page).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path

CHUNKS = 4096  # at most before the sound: a file with more was not made by a recorder
FIRST_BYTES = 64
SOUNDS = (b"data", b"SSND", b"BODY", b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b"caff")
"""Names of chunks that hold sound: behind the sound they are more of it, or another recording."""
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICS", b"LIST", b"id3 ", b"list", b"bext", b"iXML")
"""How what other programs append begins, however long it says it is."""
PLACEHOLDERS = (2**31, 2**32, 2**63, 2**64, 0x7F000000)
"""Sizes that programs write, or one less than NEAR away, for sound whose length they do not know yet: into a pipe, or
before a crash. SoX: 0x7ffff000 and 0x7f000000; ffmpeg and lame: 2^32 - 1; arecord: 2^31. Many others write 0."""
NEAR = 2**12 + 2**7  # SoX leaves 4 KiB, and some subtract or add their header


@dataclass(frozen=True)
class Sound:
    """The sound in a file, in bytes."""

    begin: int
    there: int
    promised: int | None  # None: the header does not say
    at: int  # where the header says it: of this many bytes, plus `more`
    form: str
    more: int = 0
    behind: int = 0  # bytes after those promised that are no chunk, tag or padding
    frames: int = 0  # as a table of packets says; 0: there is none

    @property
    def cut(self) -> bool:
        return self.promised is not None and self.there < self.promised

    @property
    def goes_on(self) -> bool:
        return self.promised is not None and self.there > self.promised

    def corrected(self, raw: bytes) -> bytes:
        """The file's bytes `raw` with a header that says what is there; without what lies behind the sound."""
        if self.promised is not None and self.goes_on:
            return raw[: self.begin + self.promised]
        said = struct.pack(self.form, self.there + self.more)
        return raw[: self.at] + said + raw[self.at + len(said) :]


def sound_of(path: Path) -> Sound | None:
    """None for other formats, and where the header cannot be followed. OSError where the file cannot be read."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(FIRST_BYTES)
        try:
            return _sound(file, first, size)
        except (struct.error, ValueError, IndexError):
            return None


@dataclass(frozen=True)
class _Chunks:
    """How a format writes the head of a chunk (its name and length), and to what multiple of bytes it fills it up.

    inside: bytes of the head that the length counts.
    """

    head: str
    pad: int
    inside: int = 0

    def after(self, begin: int, length: int) -> int:
        """Where the next begins."""
        return begin + -(-max(0, length) // self.pad) * self.pad


def _sound(file: BufferedReader, first: bytes, size: int) -> Sound | None:
    match first[:4], first[8:12]:
        case (b"RIFF" | b"RF64" | b"BW64" | b"RIFX") as kind, b"WAVE":
            return _riff(file, size, ">" if kind == b"RIFX" else "<")
        case b"FORM", b"AIFF" | b"AIFC" | b"8SVX" | b"16SV":
            chunks = _Chunks(">4sI", 2)
            for name, begin, length in _walk(file, 12, chunks):
                if name in (b"SSND", b"BODY"):
                    skip = 8 if name == b"SSND" else 0
                    return _judged(file, Sound(begin + skip, size, length, begin - 4, ">I", skip), chunks)
        case b"riff", _:
            chunks = _Chunks("<16sQ", 8, inside=24)
            for name, begin, length in _walk(file, 40, chunks):
                if name[:4] == b"data":
                    return _judged(file, Sound(begin, size, length + 24, begin - 8, "<Q", 24), chunks)
        case b"caff", _:
            chunks, frames = _Chunks(">4sQ", 1), 0
            for name, begin, length in _walk(file, 8, chunks):
                if name == b"pakt":
                    file.seek(begin + 8)
                    (frames,) = struct.unpack(">Q", file.read(8))
                elif name == b"data":
                    return _judged(file, Sound(begin + 4, size, length, begin - 8, ">Q", 4, frames=frames), chunks)
        case (b".snd" | b"dns.") as kind, _:
            order = ">" if kind == b".snd" else "<"
            begin, length = struct.unpack(f"{order}II", first[4:12])
            return _judged(file, Sound(begin, size, length, 8, f"{order}I"))
        case b"NIST", _:
            return _nist(file, size)
    return None


def _judged(file: BufferedReader, raw: Sound, chunks: _Chunks | None = None) -> Sound:
    """raw: `promised` as the header has it, with the `more` bytes that are no sound, and `there` the file's size."""
    assert raw.promised is not None
    size, length = raw.there, raw.promised - raw.more
    there = max(0, size - raw.begin)
    if length <= 0 or any(abs(raw.promised - value) < NEAR for value in PLACEHOLDERS):
        empty = chunks is not None and _behind_chunks(file, raw.begin, size, chunks) == size
        return replace(raw, there=0 if empty else there, promised=None)
    end = raw.begin + length
    if end < size:
        position = end
        if chunks:  # some programs do not fill up the sound
            starts = {end, chunks.after(raw.begin - raw.more, raw.promised)}
            position = max(_behind_chunks(file, start, size, chunks) for start in starts)
        if not _is_no_sound(file, position):
            return replace(raw, there=there, promised=length, behind=size - position)
    return replace(raw, there=there, promised=length)


def _behind_chunks(file: BufferedReader, position: int, size: int, chunks: _Chunks) -> int:
    """The first byte, from `position` on, that is in no chunk, or in one of sound; the file's size where none is."""
    head = struct.calcsize(chunks.head)
    while position + head <= size:
        file.seek(position)
        name, length = struct.unpack(chunks.head, file.read(head))
        end = position + head + length - chunks.inside
        printable = all(0x20 <= byte < 0x7F for byte in name[:4])
        if not printable or name[:4] in SOUNDS or length < chunks.inside or end > size:
            break
        position = chunks.after(position + head, length - chunks.inside)
    return min(position, size)


def _is_no_sound(file: BufferedReader, position: int) -> bool:
    """Whether from here on there are only zeros, or a tag, perhaps behind zeros."""
    file.seek(position)
    while some := file.read(2**16):
        if rest := some.lstrip(b"\0"):
            return rest.startswith(TAGS)
    return True


def _walk(file: BufferedReader, position: int, chunks: _Chunks) -> Iterator[tuple[bytes, int, int]]:
    """By chunk its name, the first byte of its content, and its length."""
    head = struct.calcsize(chunks.head)
    for _ in range(CHUNKS):
        file.seek(position)
        name, length = struct.unpack(chunks.head, file.read(head))
        yield name, position + head, length - chunks.inside
        position = chunks.after(position + head, length - chunks.inside)
        if position > os.fstat(file.fileno()).st_size:
            return


def _riff(file: BufferedReader, size: int, order: str) -> Sound | None:
    large: tuple[int, int] | None = None
    chunks = _Chunks(f"{order}4sI", 2)
    for name, begin, length in _walk(file, 12, chunks):
        if name == b"ds64":
            file.seek(begin + 8)
            (count,) = struct.unpack("<Q", file.read(8))
            large = count, begin + 8
        elif name == b"data":
            if large and length == 2**32 - 1:
                return _judged(file, Sound(begin, size, large[0], large[1], "<Q"), chunks)
            return _judged(file, Sound(begin, size, length, begin - 4, f"{order}I"), chunks)
    return None


def _nist(file: BufferedReader, size: int) -> Sound | None:
    """The text of the header: `sample_count -i 32000` and the like; None where it leaves out what the length takes, and
    for samples that are compressed.
    """
    file.seek(0)
    _, begin = file.readline(), int(file.readline())
    fields = {line.split()[0]: line.split()[-1] for line in file.read(begin).splitlines() if len(line.split()) == 3}
    if b"," in fields.get(b"sample_coding", b""):  # such as pcm,embedded-shorten-v2.00
        return None
    length = math.prod(int(fields.get(name, 0)) for name in (b"sample_count", b"sample_n_bytes"))
    length *= int(fields.get(b"channel_count", 1))
    return _judged(file, Sound(begin, size, length, 0, "0s")) if length > 0 else None


# --- MP3 and Ogg ---

BIT_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""In kbit/s, by version of MPEG (2 stands for 2.5 too) and layer."""
SPARE = 2  # frames by which programs count differently


@dataclass(frozen=True)
class Streams:
    """The streams of a file, one after the other: the first byte of each and the byte after its last.

    whole: whether the last one ends as it should, as far as the format shows that.
    """

    spans: tuple[tuple[int, int], ...]
    whole: bool = True


def streams_of(path: Path, format_: str) -> Streams | None:
    """Where libsndfile has to be given each stream by itself; None where it decodes the file to its end by its header.

    format_: libsndfile's name of it; None for all but MP3 and OGG. OSError where the file cannot be read.
    """
    if format_ == "MP3":
        return _mpeg(path.read_bytes())
    if format_ == "OGG":
        with path.open("rb") as file:
            return _ogg(file)
    return None


def _ogg(file: BufferedReader) -> Streams | None:
    """A page that begins a stream after pages that do not begins a new link of a chain."""
    starts: list[int] = []
    position, beginning, ended = 0, False, False
    size = os.fstat(file.fileno()).st_size
    while True:
        file.seek(position)
        head = file.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            break
        segments = file.read(head[26])
        begins, ended = bool(head[5] & 2), bool(head[5] & 4)
        if begins and not beginning:
            starts.append(position)
        beginning = begins
        following = position + 27 + head[26] + sum(segments)
        if following > size:
            ended = False
            break
        position = following
    if len(starts) == 1 and ended:
        return None
    return Streams(tuple(zip(starts, [*starts[1:], position], strict=True)), whole=ended)


def _mpeg(raw: bytes) -> Streams | None:
    """The frames of an MP3 are counted: only where its first says as many does libsndfile know the length."""
    frames = _frames(raw)
    first = next(frames, None)
    if first is None:
        return None
    begin, length = first
    said = _said(raw[begin : begin + length])
    if said and sum(1 for _ in frames) <= said + SPARE:  # with fewer it is cut off
        return None
    return Streams(((begin if said is None else begin + length, len(raw)),))


def _frames(raw: bytes) -> Iterator[tuple[int, int]]:
    """Each frame's first byte and its length; what lies between frames, such as tags, is skipped."""
    position, last = 0, len(raw) - 4
    kind, behind = None, False  # version, layer and rate; whether a frame has just ended
    while position <= last:
        if raw[position] == 0xFF and raw[position + 1] >= 0xE0:
            b, c = raw[position + 1], raw[position + 2]
            length = _frame_length(b, c)
            same = kind in (None, (b & 0xFE, c & 0x0C)) and position + length <= len(raw)
            if length and same and (behind or _follows(raw, position + length, b, c)):
                kind, behind = (b & 0xFE, c & 0x0C), True
                yield position, length
                position += length
                continue
        behind = False
        if raw[position : position + 3] == b"ID3":
            position += 10 + sum(
                (byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(raw[position + 6 : position + 10])
            )
        else:
            position = raw.find(b"\xff", position + 1)
            if position < 0:
                return


def _follows(raw: bytes, position: int, b: int, c: int) -> bool:
    """Whether a frame of the same kind follows, or nothing."""
    following = raw[position : position + 3]
    if len(following) < 3 or following in (b"TAG", b"APE"):
        return True
    return following[0] == 0xFF and following[1] & 0xFE == b & 0xFE and following[2] & 0x0C == c & 0x0C


def _frame_length(b: int, c: int) -> int:
    """In bytes, from the second and third byte of its header; 0 where they are no header, or of free format."""
    version, layer, index, rate = b >> 3 & 3, 4 - (b >> 1 & 3), c >> 4, c >> 2 & 3
    if version == 1 or layer == 4 or index in (0, 15) or rate == 3:
        return 0
    hertz = (44100, 48000, 32000)[rate] >> (0 if version == 3 else 1 if version == 2 else 2)
    bits = 1000 * BIT_RATES[1 if version == 3 else 2, layer][index - 1]
    pad = c >> 1 & 1
    if layer == 1:
        return (12 * bits // hertz + pad) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + pad


def _said(frame: bytes) -> int | None:
    """How many frames follow a frame that says so; 0 where it leaves that out; None for a frame of sound."""
    mpeg1, mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    at = 4 + ((17 if mono else 32) if mpeg1 else (9 if mono else 17))
    if frame[at : at + 4] in (b"Xing", b"Info"):
        flags, count = frame[at + 4 : at + 8], frame[at + 8 : at + 12]
        return int.from_bytes(count, "big") if int.from_bytes(flags, "big") & 1 else 0
    if frame[36:40] == b"VBRI":
        return 0  # libsndfile does not read what it says
    return None
