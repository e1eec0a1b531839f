"""The report of a words study: the page, and what the terminal shows of it; its figures: `words_figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from bas.report.old import noted, preset_told
from bas.report.table import markdown_table, rich_table
from bas.stats import between
from bas.studies.words.heads import ALONE, FIRST, FUSIONS, SECOND, SPEECH_ASKS, TEXT, TEXT_ASKS
from bas.studies.words.jobs import ATTENTION, CENTRE, FRAMES, FUSED, INPUTS, INSIDE, RANDOM, RAW, WORDS
from bas.studies.words.numbers import CONTROLS, told_difference

Rows = tuple[list[str], list[list[str]]]

MARK = "UNTRAINED TEXT ENCODER"
NULLS = {"chance": "any", "within": "same sentences", "place": "same place"}
"""Of `neighbours.similarity`, by which words change places; those that a corpus has no room for are left out."""


def encoder_of(store: Mapping[str, Any]) -> str:
    return str(store["encoder"]["name"]).rstrip("/").rpartition("/")[2]


def _fused(name: str, results: Mapping[str, Any]) -> str:
    """A row with text, marked where that is of an encoder without training."""
    return f"{name} ({MARK})" if results["text_encoder"]["untrained"] and (name == TEXT or name in FUSIONS) else name


def _spread(found: Mapping[str, float]) -> str:
    return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['sd']:.1f}" if found["sd"] else "")  # 0: one seed


def _against(found: Mapping[str, Any]) -> str:
    return f"{told_difference(found)}: {found['verdict']}"


def _ends(numbers: Mapping[str, Any]) -> str:
    return f" ({between(numbers['low'], numbers['high'], '')})"


def _heads(task: Mapping[str, Any]) -> list[str]:
    """The states' names, and their mean where there are several."""
    return list(task["rows"][RAW])


def _scores(task: Mapping[str, Any], columns: Mapping[str, str], metric: str) -> Rows:
    """By state, a metric of several rows; columns: heading by row. The headline with its interval."""
    rows = []
    for head in _heads(task):
        cells = [head]
        for row in columns:
            numbers = task["rows"][row].get(head) or task["rows"][row][TEXT]
            ends = _ends(numbers) if metric == task["headline"] else ""
            cells.append(_spread(numbers["metrics"][metric]) + ends)
        rows.append(cells)
    return [metric, *columns.values()], rows


def _differences(task: Mapping[str, Any], columns: Mapping[str, str], told: str) -> Rows:
    """By state, how the pairs differ; columns: heading by pair."""
    rows = [[head, *(_against(task["pairs"][pair][head]) for pair in columns)] for head in _heads(task)]
    return [told, *columns.values()], rows


def _with_text(task: Mapping[str, Any], name: str, results: Mapping[str, Any]) -> list[Rows]:
    """An input alone and with text, and what text adds."""
    columns = {name: ALONE, **{f"{name}+{fusion}": _fused(fusion, results) for fusion in FUSIONS}}
    pairs = {f"{name}+{fusion} against {name}": _fused(fusion, results) for fusion in FUSIONS}
    return [
        _scores(task, columns | {TEXT: _fused(TEXT, results)}, task["headline"]),
        _differences(task, pairs, "against alone"),
    ]


def _summary(lines: Sequence[Mapping[str, Any]]) -> Rows:
    names = [name for name in INPUTS if name in lines[0]["rows"]]
    cells = [[one["store"], *(_spread(n := one["rows"][c]) + _ends(n) for c in names)] for one in lines]
    return [lines[0]["headline"], *names], cells


def _layers(task: str, stores: Sequence[Mapping[str, Any]]) -> Rows:
    """Layer by layer, raw frames and word means of all encoders side by side."""
    found = {s["store"]: t for s in stores for t in s["tasks"] if t["task"] == task}
    columns = [(name, row) for name in found for row in (RAW, WORDS)]
    heads = dict.fromkeys(head for t in found.values() for head in _heads(t) if head.startswith("state "))
    told = [
        [
            _spread(of["metrics"][found[name]["headline"]]) if (of := found[name]["rows"][row].get(head)) else "–"
            for name, row in columns
        ]
        for head in heads
    ]
    headline = next(iter(found.values()))["headline"]
    rows = [[head, *cells] for head, cells in zip(heads, told, strict=True)]
    return [headline, *(f"{name}, {row}" for name, row in columns)], rows


def _lns(store: Mapping[str, Any]) -> Rows:
    """By state, the overlap, the mean over k, and what each null gives."""
    found = store["lns"]
    nulls = [name for name in NULLS if found["states"][0]["mean"].get(name)]
    heading = ["LNS", "mean over k", *(f"chance ({NULLS[name]}): mean, 95th percentile" for name in nulls), "p"]
    rows = []
    for state, of_state in zip(store["states"], found["states"], strict=True):
        mean = of_state["mean"]
        cells = [f"{mean[name]['mean']:.3f}, {mean[name]['p95']:.3f}" for name in nulls]
        told = f"{mean['value']:.3f} ({between(mean['low'], mean['high'], '', scale=1, digits=3)})"
        rows.append([f"state {state}", told, *cells, f"{mean['p']:.2g}"])
    return heading, rows


def _lns_by_k(store: Mapping[str, Any]) -> Rows:
    found = store["lns"]
    heading = ["LNS by k", *(f"state {state}" for state in store["states"])]
    return heading, [
        [str(k), *(f"{s['by_k'][q]['value']:.3f} (p {s['by_k'][q]['p']:.2g})" for s in found["states"])]
        for q, k in enumerate(found["ks"])
    ]


def _neighbours(store: Mapping[str, Any]) -> Rows:
    def told(near: Sequence[Mapping[str, Any]]) -> str:
        return ", ".join(f"{one['word']} {one['cosine']:.2f}" for one in near)

    rows = [
        [n["word"], str(n["tokens"]), told(n["acoustic"]), told(n["lexical"]), ", ".join(n["common"]) or "–"]
        for n in store["neighbours"]
    ]
    return ["word", "said", f"sounds like (state {store['neighbours_state']})", "lexical", "common"], rows


def _task_sections(task: Mapping[str, Any], results: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    alone, headline = {name: name for name in INPUTS}, task["headline"]
    found = [("alone", _scores(task, alone, m)) for m in (headline, *(m for m in task["metrics"] if m != headline))]
    against = {f"{WORDS} against {other}": f"against {other}" for other in CONTROLS}
    found.append(("word means against the rest", _differences(task, against, f"{WORDS}, {headline}")))
    if task["fused"]:
        for name in FUSED:
            found += [(f"{name} with text", rows) for rows in _with_text(task, name, results)]
        both = {f"{WORDS}+{f} against {RAW}+{f}": _fused(f, results) for f in FUSIONS}
        found.append(("word means with text against raw frames with text", _differences(task, both, headline)))
    return found


def _said(task: Mapping[str, Any]) -> list[str]:
    counted = f"{task['comparisons']} comparisons are made on this task and store; none is corrected for their number"
    return [*task["verdicts"], f"{counted}. No state is chosen: all are shown, and a mean over them."]


def _task_legend(task: dict[str, Any]) -> list[str]:
    count, stride = len(task["seeds"]), task["settings"]["stride"]
    rate = task["encoder"]["frame_rate"]
    units = ", ".join(f"{name} {task['units_of'][name]:.0f}" for name in INPUTS)
    return [
        f"Protocol {task['protocol']['told']}; {task['folds']} folds, {count} seed{'s' * (count > 1)}, "
        f"{task['fit']:.0f} training utterances a fold. Metrics in points, mean ± deviation over seeds, on "
        f"{task['tested']} test utterances; 95 % intervals: jackknife-t over {task['units']} units ({task['unit']}); "
        "better, worse or tie by interval and sign-flip test (p); a mean of states is tested as it stands. One answer "
        f"for all gives {100 * task['constant']:.1f}.",
        f"Frames of {', '.join(FRAMES)} are means of {stride}, {1000 * stride / rate:.0f} ms each, some of them "
        "across the border of two words; word means are of frames as they are, and are never averaged. Units of a "
        f"training utterance: {units}.",
        *([] if task["fused"] else ["Text is fused for the first task alone; this one has its inputs alone."]),
        *noted(task | {"layer": "every"}),
    ]


def _legend(results: Mapping[str, Any]) -> list[str]:
    text = results["text_encoder"]
    marked = f" {MARK}: its weights are random, so it knows which word it is and nothing of what it means."
    return [
        f"{WORDS}: acoustic word embeddings (AWE), means over a word's frames, the frames being those of the whole "
        f"utterance's encoding. {RAW}: all frames. {INSIDE}: the frames inside words. {RANDOM}: means of as many "
        f"random segments of the same lengths. {CENTRE}: a word's centre frame. {ATTENTION}: a word's frames, summed "
        "by a learned query of each state.",
        f"Every state has a classifier of its own: dense {FIRST}, ReLU, dense {SECOND}, ReLU on every unit (a frame or "
        "a word), the mean over units, a linear layer. The paper gives the two layers and leaves the pooling open; the "
        "mean after them is ours. Each keeps its epoch of the lowest validation loss.",
        f"Text: {text['name']}, one vector a word.{marked * text['untrained']} Concatenated: each unit with the "
        f"vector of the word that holds it, zeros where none does. {SPEECH_ASKS}: cross-attention whose query is "
        f"each acoustic unit, keys and values the utterance's words as text. {TEXT_ASKS}: the query is each word as "
        "text, keys and values the acoustic units. What is found is added to the query before the first ReLU.",
        *(f"Left out of {line}." for line in results["left_out"]),
    ]


def _words_told(store: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} {source}" for source, count in store["sources"].items())
    told = f"{store['words']:,} words in {store['utterances']} utterances; word times: {counts}"
    pseudo = " Pseudo: equal stretches that are no words." if store["sources"]["pseudo"] else ""
    return f"{told}.{pseudo}"


def _lns_told(store: Mapping[str, Any]) -> list[str]:
    found = store["lns"]
    return [
        f"Local neighbourhood similarity: the Jaccard overlap of a word type's k nearest in the acoustic and in the "
        f"lexical space, over {found['types']} types ({found['tokens']:,} words, all speakers; {found['left_out']} "
        f"types left out), k {found['ks'][0]} to {found['ks'][-1]}; no neighbour shares a sentence with the type. "
        f"Intervals: jackknife-t over {found['units']} speakers. Chance: {found['draws']} permutations of the lexical "
        "vectors, over all words, over those of the same sentences, over those of the same place in theirs, where "
        "there are enough; p is the largest of these, not corrected for the number of states and k.",
    ]


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report as a page."""
    lines = ["# Do acoustic word embeddings carry more than frames?", ""]
    lines += [*(f"- {line}" for line in _legend(results)), ""]
    lines += [*(f"- {line}" for s in results["stores"] for t in s["tasks"] for line in t["verdicts"]), ""]
    for task, stores in results["summary"].items():
        lines += [f"## All stores, {task}: the mean over states", "", *markdown_table(*_summary(stores)), ""]
        if len(stores) > 1:
            lines += [f"## All stores, {task}: layer by layer", ""]
            lines += [*markdown_table(*_layers(task, results["stores"])), ""]
    for store in results["stores"]:
        lines += [f"## {store['corpus']}, {encoder_of(store)}", "", _words_told(store), ""]
        for task in store["tasks"]:
            lines += [f"### {task['task']}", "", f"{preset_told(task['settings'])}.", ""]
            title = ""
            for title_now, rows in _task_sections(task, results):
                if title_now != title:
                    lines += [f"#### {title_now[0].upper()}{title_now[1:]}", ""]
                title = title_now
                lines += [*markdown_table(*rows), ""]
            lines += [*(f"- {line}" for line in (*_said(task), *_task_legend(task))), ""]
        lines += ["### Neighbourhoods of words", ""]
        if store["lns"] is None:
            lines += [f"None: {store['why']}.", ""]
            continue
        mark = [f"**{MARK}**: its vectors know a word and its place, so nothing here is about meaning.", ""]
        lines += mark if results["text_encoder"]["untrained"] else []
        lines += [*markdown_table(*_lns(store)), "", *markdown_table(*_lns_by_k(store)), ""]
        lines += [*markdown_table(*_neighbours(store)), ""] if store["neighbours"] else []
        lines += [*(f"- {line}" for line in _lns_told(store)), ""]
    return "\n".join(lines)


def _brief(task: Mapping[str, Any], names: Sequence[str]) -> Rows:
    """By state, the headline of some rows."""
    heading, rows = _scores(task, {name: name for name in names}, task["headline"])
    return ["reads", *heading[1:]], [[head, *(cell.split()[0] for cell in cells)] for head, *cells in rows]


def show(results: Mapping[str, Any], console: Console) -> None:
    """What answers the question, narrow enough for a terminal; the rest is on the page."""
    for store in results["stores"]:
        for task in store["tasks"]:
            title = f"{store['store']}, {task['task']}: {task['headline']}"
            console.print(rich_table(title, *_brief(task, INPUTS)))
            if task["fused"]:
                heading, rows = _brief(task, [*(f"{n}+{f}" for n in (RAW, WORDS) for f in FUSIONS), TEXT])
                title = f"with text: {task['headline']}" + f", {MARK}" * results["text_encoder"]["untrained"]
                last = list(zip(heading[1:], rows[-1][1:], strict=True))
                console.print(rich_table(title, ["row", rows[-1][0]], last))
            for line in task["verdicts"]:
                console.print(line, style="bold", highlight=False, markup=False)
        if store["lns"] is None:
            console.print(
                f"{store['store']}: no neighbourhoods of words: {store['why']}", highlight=False, markup=False
            )
        else:
            heading, rows = _lns(store)
            title = f"{store['store']}: neighbourhoods of words, sound against text"
            title += f" ({MARK})" if results["text_encoder"]["untrained"] else ""
            console.print(rich_table(title, [heading[0], heading[1], heading[-1]], [[r[0], r[1], r[-1]] for r in rows]))
