"""A run's folder is one directly under runs/, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from sounds import tone

import bas
from bas.cli.main import main
from bas.corpora import Corpus
from bas.errors import UserError
from bas.runs.choose import RUNS, folder_named, store_folder

BAD = {
    "../../evil": "dot",
    "..": "dot",
    ".": "dot",
    ".hidden": "dot",
    "/tmp/evil": "slash",
    "a/b": "slash",
    "a/": "slash",
    "a/../../b": "slash",
    "": "empty",
    "  ": "empty",
    " a": "blanks",
    "a\n": "blanks",
    "a\nb": "printed",
    "a\x00b": "printed",
    "a\x1b[2J": "printed",
    "a\udce9": "printed",
    "a\u202eb": "printed",
    "n" * 201: "201 bytes",
    "中" * 70: "210 bytes",
    "features": "holds something else",
    "Protocols": "holds something else",
    "corpora": "holds something else",
}
GOOD = ("new", "[new]", "a b", "crowd [v2] |$x$ <b>", "中文", "x.y", "-x", "n" * 200, "features-2")


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_folders_own_is_refused(name: str) -> None:
    with pytest.raises(
        UserError, match=rf"^--name .*{BAD[name]}.*; must be the name of one folder in runs/"
    ) as refused:
        folder_named(name, "--name")
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("name", GOOD)
def test_other_names_stay_as_they_are(name: str, tmp_path: Path) -> None:
    folder = folder_named(name, "--name")
    assert folder == RUNS / name
    (tmp_path / folder).mkdir(parents=True)


@pytest.mark.parametrize("name", ["..", ".x", "a\x00b", "c" * 190, " a", "a\nb"])
def test_a_store_is_named_by_hand_where_its_corpus_cannot_name_it(name: str) -> None:
    with pytest.raises(UserError, match=r"^give --features"):
        store_folder(_corpus(name), "an/encoder-large")


def _corpus(name: str) -> Corpus:
    corpus = Corpus.__new__(Corpus)
    object.__setattr__(corpus, "name", name)
    return corpus


@pytest.mark.parametrize("name", ["../../evil", "/{}/evil", ".", "features", "a/b", "", "a\x00b", "n" * 300])
@pytest.mark.parametrize("verb", ["compare", "dynamics", "probe"])
def test_every_verb_refuses_it_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, name: str
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    rows = ["id,audio,label,speaker"]
    for n in range(8):
        tone(Path(f"{n}.wav"), 0.2, hertz=200 + 50 * n)
        rows.append(f"{n},{n}.wav,{'ab'[n % 2]},s{n // 2}")
    Path("cups.csv").write_text("\n".join(rows) + "\n")
    bas.extract({"corpus": {"reader": "manifest", "root": "cups.csv"}, "encoder": {"name": "log-mel"}})
    before = sorted(tmp_path.rglob("*"))
    name = name.format(tmp_path)
    of = ["--features", "runs/features/cups-log-mel", "--protocol", "speaker:2"]
    if verb == "dynamics":
        of = ["--corpus", "manifest", "--root", "cups.csv", "--encoder", "log-mel"]
    assert main([verb, *of, "--name", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bas: --name ")
    assert len(error.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["corpus", "export", "--corpus", "manifest", "--root", "cups.csv", "--to", ""],
        ["features", "subset", "store", "--layers", "0", "--into", ""],
        ["extract", "--corpus", "manifest", "--root", "", "--encoder", "log-mel"],
        ["compare", "--features", ""],
    ],
)
def test_an_empty_path_is_not_the_working_folder(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "must not be empty" in capsys.readouterr().err


def test_a_text_with_nul_is_refused() -> None:
    with pytest.raises(UserError, match="without NUL"):
        bas.extract({"corpus": {"reader": "manifest", "root": "a\x00b"}, "encoder": {"name": "log-mel"}})
