"""What was found of a store's recordings holds while their files stay as they are, and no longer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sounds import tone
from stores import Fake, store

import bas
from bas.corpora import open_corpus
from bas.features import compared
from bas.features.compared import FILE, same_samples, unlike
from bas.features.recordings import recording_hashes
from bas.features.store import FeatureStore
from bas.protocols.same import same_samples as compare_samples
from bas.speech import audio

OLD = 1_500_000_000  # seconds of the epoch: no file here is that young
SPACE = """
from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace

space = SearchSpace({"a": {"FFN": FFN}}, MeanPool)
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of four speakers and its store, `store`; its files count as old although they were made just now."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compared, "FRESH", -1.0)
    lines = ["id,audio,label,speaker"]
    for s in range(4):
        for k, label in enumerate(("high", "low")):
            for take in range(2):
                tone(tmp_path / f"s{s}{label}{take}.wav", 0.2, hertz=(900, 200)[k] + 10 * s + take)
                lines.append(f"s{s}{label}{take},s{s}{label}{take}.wav,{label},s{s}")
    path = tmp_path / "tones.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    store(path, tmp_path / "store", Fake())
    (tmp_path / "one.py").write_text(SPACE)
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """Counts, since it was last asked, the recordings that were hashed and those that were decoded."""
    counts = {"hashed": 0, "decoded": 0}
    hashes, fingerprint = recording_hashes, audio.fingerprint

    def hashed(utterances: Any, tick: Any) -> dict[str, str]:
        counts["hashed"] += len(list(utterances))
        return hashes(utterances, tick)

    def decoded(utterance: Any, seconds: float | None = None) -> str | None:
        counts["decoded"] += 1
        return fingerprint(utterance, seconds)

    monkeypatch.setattr(compared, "recording_hashes", hashed)
    monkeypatch.setattr(audio, "fingerprint", decoded)

    def since() -> tuple[int, int]:
        now = counts["hashed"], counts["decoded"]
        counts.update(hashed=0, decoded=0)
        return now

    return since


def begin(name: str) -> None:
    """Begin a run of compare on the store."""
    settings = {"width": 8, "epochs": 1}
    given = {"features": ["store"], "spaces": ["one.py"], "layer": ["last"], "device": "cpu", "settings": settings}
    bas.prepare("compare", given, name=name, protocol={"rule": "speaker"})


def test_recordings_are_read_at_the_first_run_alone(table: Path, read: Callable[[], tuple[int, int]]) -> None:
    begin("one")
    assert read() == (16, 16)  # all of one length; told apart by how they begin
    begin("one")
    begin("other")
    assert read() == (0, 0)
    notes = {name: json.loads(Path(f"runs/{name}/protocol.json").read_text())["notes"] for name in ("one", "other")}
    assert notes["one"] == notes["other"]


@pytest.mark.parametrize("change", ["content", "times", "segment"])
def test_a_change_of_a_file_or_of_its_times_is_seen(
    table: Path, read: Callable[[], tuple[int, int]], change: str
) -> None:
    begin("one")
    read()
    one = Path("s0low0.wav")
    if change == "segment":
        rows = table.read_text().splitlines()
        rows = [f"{row},{'end' if i == 0 else 0.1 if row.startswith('s0low0') else ''}" for i, row in enumerate(rows)]
        table.write_text("\n".join(rows) + "\n")
    elif change == "content":
        status = one.stat()
        tone(one, 0.2, hertz=333)
        assert one.stat().st_size == status.st_size
        os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a careless tool leaves it
    else:
        os.utime(one, (OLD, OLD))
    if change == "times":
        begin("one")
        assert read() == (16, 16)
    else:
        with pytest.raises(bas.UserError, match="1 utterances of tones have another recording than was extracted"):
            begin("one")
        with pytest.raises(bas.UserError, match="another recording"):
            begin("again")


def test_equal_recordings_are_remembered_too(table: Path, read: Callable[[], tuple[int, int]]) -> None:
    shutil.copy("s0low0.wav", "s0low1.wav")
    corpus = open_corpus("manifest", table)
    for decoded in (18, 0):
        assert same_samples(Path("store"), corpus.utterances) == ([("s0low0", "s0low1")], [])
        assert read() == (0, decoded)
    assert same_samples(Path("store"), corpus.utterances[2:]) == ([("s0low0", "s0low1")], [])
    assert read()[1] > 0, "of other utterances nothing is known"


def test_what_was_found_unlike_is_not_kept(table: Path, read: Callable[[], tuple[int, int]]) -> None:
    corpus, info = open_corpus("manifest", table), FeatureStore(Path("store")).info
    tone(Path("s0low0.wav"), 0.2, hertz=333)
    for _ in range(2):
        assert unlike(Path("store"), info, corpus.utterances) == ["s0low0"]
        assert read()[0] == 16
    assert not Path("store", FILE).exists()


def test_that_a_recording_is_not_there_is_kept_until_it_is(table: Path, read: Callable[[], tuple[int, int]]) -> None:
    corpus, info = open_corpus("manifest", table), FeatureStore(Path("store")).info
    Path("s0low0.wav").rename("away.wav")
    for count in (16, 0):
        assert unlike(Path("store"), info, corpus.utterances) == []
        assert same_samples(Path("store"), corpus.utterances) == ([], ["s0low0"])
        assert read() == (count, count)
    tone(Path("s0low0.wav"), 0.2, hertz=333)
    assert unlike(Path("store"), info, corpus.utterances) == ["s0low0"]
    assert same_samples(Path("store"), corpus.utterances) == ([], [])


def test_of_files_changed_just_now_nothing_is_kept(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "FRESH", 1e6)
    begin("one")
    assert not Path("store", FILE).exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(utterances: Any) -> Any:
        os.utime("s0low0.wav", (OLD, OLD))
        return compare_samples(utterances)

    monkeypatch.setattr(compared, "compare_samples", touched)
    same_samples(Path("store"), open_corpus("manifest", table).utterances)
    assert not Path("store", FILE).exists()


def test_a_date_in_the_future_does_no_harm(table: Path, read: Callable[[], tuple[int, int]]) -> None:
    os.utime("s0low0.wav", (2 * OLD, 2 * OLD))  # as a recorder with a wrong clock leaves it
    begin("one")
    read()
    begin("other")
    assert read() == (0, 0)


def test_another_file_in_its_place_is_seen_though_all_its_times_are_the_same(
    table: Path, read: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a link in a corpus leads to another object of its store, written within one tick of the disk's clock."""
    begin("one")
    stat = Path.stat

    def same_times(path: Path, **how: Any) -> Any:
        nanoseconds = dict.fromkeys(("st_atime_ns", "st_mtime_ns", "st_ctime_ns"), OLD * 10**9)
        return os.stat_result([*tuple(stat(path, **how))[:7], OLD, OLD, OLD], nanoseconds)

    monkeypatch.setattr(Path, "stat", same_times)
    begin("two")
    read()
    os.replace("s0low0.wav", "kept.wav")
    shutil.copy("s0low1.wav", "s0low0.wav")
    with pytest.raises(bas.UserError, match=r"same recording|another recording"):
        begin("three")


@pytest.mark.parametrize("harm", ["damaged", "a folder", "unwritable", "unreadable"])
def test_without_its_file_recordings_are_read_again(
    table: Path, read: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    path = Path("store", FILE)
    if harm == "damaged":
        begin("one")
        path.write_text(path.read_text().replace("same", "sane"))
    elif harm == "a folder":
        path.mkdir()
    else:

        def refused(*_: Any) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(compared, "write_json" if harm == "unwritable" else "read_record", refused)
    for _ in range(2 if harm != "damaged" else 1):
        read()
        begin("one")
        assert read() == (16, 16)


def test_one_identity_does_not_speak_for_another(table: Path, read: Callable[[], tuple[int, int]]) -> None:
    """The same recordings, of which another store's features were computed from others."""
    corpus, info = open_corpus("manifest", table), FeatureStore(Path("store")).info
    assert unlike(Path("store"), info, corpus.utterances) == []
    read()
    other = {id_: ("0" * 16, samples) for id_, (_, samples) in info.recordings.items()}
    changed = replace(info, recordings=other)
    assert len(unlike(Path("store"), changed, corpus.utterances)) == 16
    assert read()[0] == 16
