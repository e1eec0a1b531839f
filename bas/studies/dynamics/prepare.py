"""The data of the study: recordings at one rate and loudness, their acoustic features, their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from scipy.io import wavfile

from bas.corpora import Corpus, Utterance, export, open_corpus
from bas.encoders import Tunable
from bas.encoders.text import embed_texts
from bas.errors import UserError
from bas.speech import acoustics, audio
from bas.util.files import read_record, replacing, write_json
from bas.util.progress import bar


def prepare(
    corpus: Corpus, encoder: Tunable, folder: Path, loudness: float | None, console: Console
) -> tuple[Corpus, dict[str, str]]:
    """Write every recording as 16 kHz mono under `folder`, and a manifest of them; finished work is not repeated.

    loudness: LUFS; None: as recorded. Returns the corpus with these recordings, and by id why an utterance is left out:
    it cannot be read, is silent, or is too short or too long for the encoder. Raises UserError when all are left out.
    """
    path = folder / "prepared.json"
    if not path.exists():
        kept: list[Utterance] = []
        skipped: dict[str, str] = {}
        with bar(console, "utterances") as progress:
            line = progress.add_task("prepare", total=len(corpus.utterances))
            for index, utterance in enumerate(corpus.utterances):
                wav = folder / "audio" / f"{index:06}.wav"  # an id may not be a valid file name
                try:
                    if not wav.exists():
                        _write(utterance, wav, encoder, loudness)
                    kept.append(replace(utterance, audio=wav, start=0.0, end=None))
                except UserError as error:
                    skipped[utterance.id] = str(error)
                progress.advance(line)
        if not kept:
            first = next(iter(skipped.values()))
            raise UserError(f"corpus {corpus.name}: no utterance can be used; the first: {first}")
        export.write(replace(corpus, utterances=tuple(kept)), folder / "corpus.csv")
        write_json(path, {"loudness": loudness, "rate": audio.SAMPLE_RATE, "kept": len(kept), "skipped": skipped})
    reasons: dict[str, str] = read_record(path, "delete it: the recordings are prepared again")["skipped"]
    for id_, reason in reasons.items():
        console.print(f"skipped: {id_}: {reason}", style="yellow", highlight=False, markup=False)
    prepared = open_corpus("manifest", folder / "corpus.csv")
    return replace(prepared, name=corpus.name), reasons


def _write(utterance: Utterance, wav: Path, encoder: Tunable, loudness: float | None) -> None:
    """Write one recording. Raises UserError naming one that cannot be used."""
    wave = audio.load(utterance)
    if not encoder.min_samples <= len(wave) <= (encoder.longest or len(wave)):
        seconds = len(wave) / audio.SAMPLE_RATE
        raise UserError(f"{utterance.audio}: {seconds:.2f} s is too short or too long for the encoder")
    if loudness is not None:
        try:
            wave = audio.to_loudness(wave, loudness)
        except UserError as error:
            raise UserError(f"{utterance.audio}: {error}") from error
    # As float32, which keeps samples beyond 1.0. libsndfile would add the time of day, and with it change the hash.
    with replacing(wav) as temporary, temporary.open("wb") as stream:
        wavfile.write(stream, audio.SAMPLE_RATE, wave)


def acoustic_of(corpus: Corpus, ids: Sequence[str], folder: Path, console: Console) -> acoustics.Acoustic:
    """The acoustic features of these utterances, measured once and saved in `acoustic.npz`."""
    path = folder / "acoustic.npz"
    if path.exists():
        return acoustics.Acoustic.load(path)
    utterances = {u.id: u for u in corpus.utterances}
    with bar(console, "utterances") as progress:
        line = progress.add_task("eGeMAPS", total=len(ids))
        waves = ((id_, audio.load(utterances[id_])) for id_ in ids)
        acoustic = acoustics.measure(waves, lambda: progress.advance(line))
    acoustic.save(path)
    return acoustic


def texts_of(corpus: Corpus, encoder: str | None, device: torch.device) -> dict[str, Any]:
    """The text of each utterance by id; with a text encoder, the text's vector.

    Raises UserError when the encoder cannot be loaded, or an utterance has no text.
    """
    texts = {u.id: u.text for u in corpus.utterances}
    if encoder is None:
        return dict(texts)
    given = [text for text in texts.values() if text]
    if len(given) < len(texts):
        raise UserError(f"--text-encoder: {len(texts) - len(given)} utterances of {corpus.name} have no text")
    return dict(zip(texts, embed_texts(encoder, given, device), strict=True))
