"""What a user named is shown as it is: on a terminal, on a page, in TensorBoard and in figures, by every verb."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from golden.verbs import changes, corpus
from markdown_it import MarkdownIt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bas.cli.main import main
from bas.encoders import NANO
from bas.studies.probe import few

SHOWN = {"a": "[/x] a|b `c` <script>z</script> $y_1$ *d* :smile: [e](f) &lt; 中", "b": "\x1b]0;owned\x07\x9b31m_b_ \\"}
AWE = "[/awe]|<b>*"
SPACE = '''"""Four architectures."""
from functools import partial
from bas.blocks import FFN, MSA, MeanPool
from bas.space import SearchSpace

layer = {"[/MSA]|$a": partial(MSA, num_heads=2), "<b>FFN\\x1b": FFN}
space = SearchSpace(slots={"__layer1__": layer, "_layer2_": layer}, pool=MeanPool)
'''
TABLE, FILE, NAME = "crowd [v2] |$x$ <b>.csv", "[dim] |<b>.py", "[new] |$y$ <b> "
MARKUP = ("html_inline", "html_block", "link_open", "image", "code_inline", "em_open", "fence", "code_block", "s_open")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The corpus of the golden run under such names, its features and a space; the working directory."""
    folder = tmp_path_factory.mktemp("names [red]")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "400")
        with corpus(folder).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            label = "b" if row["speaker"] == "s5" else row["label"]  # so that a test part lacks [/x]
            row["label"], row["speaker"] = SHOWN[label], f"[/{row['speaker']}]|<b>"
            row["id"] = f"[/{row['id']}]$<b>"
            row["shares"] = json.dumps({AWE: json.loads(row["shares"])["awe"], "[fear]": 0.5})
        with Path(TABLE).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        Path(FILE).write_text(SPACE, encoding="utf-8")
        for verb in ("protocol make", "extract"):
            assert main([*verb.split(), *VERBS[verb]]) == 0
        yield folder


MANIFEST = ["--corpus=manifest", f"--root={TABLE}"]
RUN = ["--seeds=1", "--workers=1"]
SMALL = changes(epochs=2, width=16, batch_size=8)
VERBS = {
    "corpus show": MANIFEST,
    "protocol make": [*MANIFEST, "--protocol=speaker:3", "--to=[split].json"],
    "protocol check": ["[split].json", *MANIFEST],
    "extract": [*MANIFEST, f"--encoder={NANO}", "--layers=0,6", "--features=[nano] |<b>"],
    "features info": ["[nano] |<b>"],
    "features verify": ["[nano] |<b>"],
    "compare": [
        "--layer=6",
        f"--space={FILE}",
        "--protocol=speaker:6",
        *SMALL,
        *changes(strategy="single-path", committee=1),
    ],
    "audit": ["--layer=6", f"--space={FILE}", "--protocol=speaker:2", "--strategy=gumbel", *SMALL],
    "tune": ["--layer=6", f"--space={FILE}", "--protocol=speaker:60/20/20", "--trials=2", *SMALL],
    "protocol cost": ["--layer=6", f"--space={FILE}", "--clean=speaker:3", "--leaky=id:3", *SMALL],
    "probe": ["--protocol=speaker:2", "--percent", "50", *changes(epochs=2, batch_size=8)],
    "words": ["--protocol=speaker:2", "--text-encoder=random", *changes(epochs=2, batch_size=8)],
    "shares": ["--protocol=speaker:2", "--layer=6", *SMALL],
    "dynamics": [
        *MANIFEST,
        *(f"--encoder={NANO}", "--protocol=speaker:3", "--rotations=1"),
        *changes(epochs=2, batch=16, micro_batch=8, evaluate_every=1, checkpoint_every=2, lr=0.001),
    ],
}
NAMES = {
    "protocol make": "[split].json",
    "protocol check": "[/s0]|<b>",
    "extract": "[nano] |<b>",
    "dynamics": "[new] |$y$ <b>",
}
TRAINING = ("compare", "audit", "tune", "protocol cost", "probe", "words", "shares", "dynamics")


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_shows_names_as_they_are(work: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    words, name = list(VERBS[verb]), f"{NAME}{verb.split()[-1]}"
    if verb in TRAINING:
        words += ["--name", name, *([] if verb == "dynamics" else ["--features=[nano] |<b>", *RUN])]
    with mock.patch.object(few, "DRAWS", 2):
        code = main([*verb.split(), *words])
    said, wrong = capsys.readouterr()
    assert code == 0, wrong
    assert NAMES.get(verb, "crowd [v2] |$x$ <b>") in said
    assert not set(said + wrong) & {"\x1b", "\x07", "\x9b"}
    if verb in TRAINING:
        assert f"runs/{name}" in said
        page = _parse(Path("runs", name, "table.md").read_text(encoding="utf-8"))
        assert "crowd [v2] |$x$ <b>" in page
        assert verb != "compare" or f"classes missing from test: fold 5 label {SHOWN['a']!r}" in page
        _check_board(Path("runs", name))


def _parse(text: str) -> str:
    """What a page shows."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inside = [child for token in tokens for child in token.children or ()]
    assert not [(token.type, token.content) for token in (*tokens, *inside) if token.type in MARKUP]
    return "".join(token.content for token in inside)


def _check_board(folder: Path) -> None:
    files = list(folder.rglob("events.*"))
    assert files
    for path in files[:3]:
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["tensors"]:
            if tag.endswith("text_summary"):
                for event in events.Tensors(tag):
                    _parse(event.tensor_proto.string_val[0].decode())
