"""EmoDB, or another corpus, under the preset of each study's paper, shortened as its page says; writes papers.md.

What a study's own page says in full is cited: the tables that answer the paper's question. The runs stay in the folder,
and the same command goes on where one was killed.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch
from features import commit, machine

from bas.util.files import write_text

PAGE = Path(__file__).with_suffix(".md")
SHORTENED = {
    "probe": ("decoding-emotions", "--set stride=4"),
    "words": ("word-embeddings", "--text-encoder random --set stride=4 --set epochs=20"),
    "shares": ("emotion-shares", "--set stride=8 --set epochs=30 --set batch_size=32"),
    "compare": ("paper", "--set stride=16 --set width=64 --set epochs=50"),
    "audit": ("paper", "--set stride=16 --set width=64 --set epochs=40 --strategy gumbel --variant none --sample 8"),
}
"""By verb, the preset and what is changed of it: fewer frames, of four fewer epochs, of two narrower networks."""

CITED = {
    "compare": ("",),
    "audit": ("Strategies", "Against random", "What a block", "The claims of"),
    "probe": ("Linear heads", "Dense heads", "Errors that one layer"),
    "words": ("All stores",),
    "shares": ("Encoder x attention", "Networks against", "Every metric o"),
}
"""By verb, how the headings of the tables begin; a comparison has one table."""

SAID = re.compile("^- AWE beat|is not distinguishable from|is better than|is worse than|no significance is claimed")


def words_of(verb: str, features: str, seeds: int) -> str:
    preset, changes = SHORTENED[verb]
    return f"bas {verb} --features {features} --preset {preset} {changes} --seeds {seeds} --name {preset}-{verb}"


def cited(page: str, verb: str) -> str:
    """The sections of a study's page whose headings begin so, at one level, without their notes but the verdicts."""
    sections = [s for s in re.split(r"^(?=##+ )", page, flags=re.MULTILINE) if s.startswith("#")]
    wanted = [s for s in sections if re.sub(r"^#+ ", "", s).startswith(CITED[verb])]
    assert len(wanted) >= len(CITED[verb]), (verb, [s.splitlines()[0] for s in sections])
    tables = [re.sub(r"^#+ ", "### ", re.split("\n\n(?:- |Settings)", section)[0].strip()) for section in wanted]
    said = dict.fromkeys(line for line in page.splitlines() if line.startswith("- ") and SAID.search(line))
    return "\n\n".join([*tables, *(["\n".join(said)] if said else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="a feature store")
    parser.add_argument("--folder", type=Path, required=True, help="of the runs")
    parser.add_argument("--seeds", type=int, default=2, help="default: %(default)s")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for verb, (preset, _) in SHORTENED.items():
        command = words_of(verb, str(given.features.resolve()), given.seeds)
        done = subprocess.run([sys.executable, "-m", *shlex.split(command)], cwd=given.folder)
        if done.returncode:
            sys.exit(f"benchmarks/papers.py: {command}: exit code {done.returncode}")
        page = (given.folder / "runs" / f"{preset}-{verb}" / "table.md").read_text(encoding="utf-8")
        shown = words_of(verb, given.features.name, given.seeds)
        parts.append(f"## {preset}: {verb}\n\n`{shown}`\n\n{cited(page, verb)}\n")
    text = TEXT.format(
        store=given.features.name,
        seeds=given.seeds,
        date=date.today().isoformat(),
        commit=commit(),
        machine=machine(torch.device("cpu")),
        parts="\n".join(parts),
    )
    write_text(PAGE, text)
    print(f"written: {PAGE}")


TEXT = """# The studies under their papers' presets

`python benchmarks/papers.py --features {store} --folder FOLDER --seeds {seeds}`, {date}, commit {commit}, on {machine}.

The presets of [four papers](../docs/papers.md) with all their numbers but those that a command names: frames are
averaged, four of the runs have fewer epochs, and two narrower networks. The encoder is the small one of this package,
the corpus one of acted German: nothing here repeats a paper's figure, and what a table says of this corpus holds for it
alone.

{parts}"""


if __name__ == "__main__":
    main()
