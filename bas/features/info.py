"""Describe what a store holds and what made it. Imports no torch, so it answers at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from bas.features.store import METADATA, SEGMENTS, StoreInfo, open_shard, source_of
from bas.util.files import read_record
from bas.util.places import find_place
from bas.util.progress import bar

SHOWN = 3  # skipped utterances that are listed
PATIENT = 100  # shards at most that are opened without a progress bar
_POOLED = {
    "mean": "the mean over each {unit}'s frames",
    "centre": "the frame at the centre of each {unit}",
    "inside": "the frames inside {rows}",
}


def describe(folder: Path, console: Console) -> dict[str, str]:
    """The store's properties by name, as texts, some of several lines.

    Raises UserError where there is no complete store, or a shard is missing or damaged.
    """
    info = StoreInfo.read(folder)
    frames, written = 0, Counter[str]()
    with bar(console, "shards") as progress:
        task = progress.add_task("open", total=len(info.shards), visible=len(info.shards) > PATIENT)
        for index in [i for i, ids in enumerate(info.shards) if ids]:
            contents = open_shard(folder, info, index).contents
            frames += contents.shape[1]
            written[", ".join(f"{name} {version}" for name, version in contents.versions.items())] += 1
            progress.advance(task)
    encoder = info.encoder
    rows, each, derived = _describe_derived(folder, info)
    hours = sum(info.recordings[id_][1] for ids in info.shards for id_ in ids) / encoder["sample_rate"] / 3600
    size = sum(path.stat().st_size for path in folder.glob("shard-*.h5"))
    facts = {
        "corpus": f"{info.corpus}, {info.root}",
        **(
            {"columns": ", ".join(f"{name} is {column}" for name, column in info.columns.items())}
            if info.columns
            else {}
        ),
        "held": f"{info.num_utterances:,} utterances, {hours:.2f} h, {frames:,} {rows}",
        **derived,
        "encoder": f"{encoder['name']} ({encoder['model_type']})",
        "revision": encoder["revision"],
        "input": f"{encoder['sample_rate'] / 1000:g} kHz" + (f", {encoder['input']}" if encoder["input"] else ""),
        "layers": f"{', '.join(map(str, info.layers))} of 0 to {encoder['num_states'] - 1}",
        "frames": f"{info.dim} wide, {each}",
        "computed": f"{_describe_origin(folder, info)}, stored as {info.dtype}",
        "size": f"{size:,} bytes in {len(info.shards)} shards",
        "made by": info.command,
        "versions": next(iter(written), "no shard"),
        "identity": info.identity,
        "skipped": "\n".join([f"{len(info.skipped)} utterances", *_some(info.skipped)]) if info.skipped else "none",
    }
    if info.truncated:
        facts["breaking off"] = "recordings that break off were taken as far as they go (--accept-truncated)"
    if len(written) > 1:
        facts["versions"] = "\n".join(["they differ:", *(f"{n} shards: {text}" for text, n in written.most_common())])
    if (folder / "plan.json").exists():
        facts["under way"] = f"more of it: `{info.command}` is running, or was stopped; the same command goes on"
    return facts


def _describe_origin(folder: Path, info: StoreInfo) -> str:
    """How the features were computed, as far as bas knows."""
    if not info.imported:
        return f"in {info.encoder['precision']} on {info.device}"
    of = f" from {source_of(folder, info)}" if info.made_by == "import" else ""
    return f"elsewhere, and imported{of}"


def _describe_derived(folder: Path, info: StoreInfo) -> tuple[str, str, dict[str, str]]:
    """The name of a store's rows, their rate, and a derived store's further properties."""
    rate = f"{info.encoder['frame_rate']:g} a second"
    if not info.derived:
        return "frames", rate, {}
    if info.made_by == "append":
        raw = read_record(folder / METADATA, f"run the same `{info.command}` again", old=True)
        columns = f"{', '.join(raw['columns'])}: the last {len(raw['columns'])} of a frame's {info.dim} numbers"
        return "frames", rate, {"derived from": find_place(raw, "parent", folder), "metadata": columns}
    pooling, segments, digest = info.derived.split()
    unit, rows = ("word", "words") if segments == "words" else ("random stretch", "random stretches")
    raw = read_record(folder / SEGMENTS, f"run the same `{info.command}` again", old=True)
    counts = Counter(raw["source"].values())
    sources = (("corpus", "with the corpus's times"), ("aligned", "aligned"), ("pseudo", "cut into pseudo-segments"))
    lines = {
        "derived from": f"{find_place(raw, 'parent', folder)}: {_POOLED[pooling].format(unit=unit, rows=rows)}",
        "segments": f"{rows} {digest}: utterances {', '.join(f'{counts[name]:,} {text}' for name, text in sources)}",
    }
    return ("frames", f"at {rate}", lines) if pooling == "inside" else (rows, f"one a {unit}, of {rate}", lines)


def _some(skipped: Mapping[str, str]) -> list[str]:
    lines = [f"{id_}: {why}" for id_, why in list(skipped.items())[:SHOWN]]
    return lines + ([f"and {len(skipped) - SHOWN} more: store.json"] if len(skipped) > SHOWN else [])
