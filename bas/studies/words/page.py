"""The report of a words study: the page, and what the terminal shows of it; its figures: `words_figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console

from bas.report.format import NONE, counted, encoder_name, ends, over_seeds, points, spread, verdict
from bas.report.notes import about, corrected, intervals_line, preset_line, remark_lines, verdict_lines
from bas.report.results import Score
from bas.report.table import Table, rich_table
from bas.speech.words import describe_unaligned
from bas.studies.words.heads import ALONE, FIRST, FUSIONS, SECOND, SPEECH_ASKS, TEXT, TEXT_ASKS
from bas.studies.words.jobs import ATTENTION, CENTRE, FRAMES, FUSED, INPUTS, INSIDE, RANDOM, RAW, WORDS
from bas.studies.words.numbers import CONTROLS
from bas.studies.words.results import MEAN, Neighbour, Neighbourhoods, Similarity, StoreWords, TaskWords, Words
from bas.util.markdown import bullets, markdown_table, paragraph, section

MARK = "UNTRAINED TEXT ENCODER"
NULLS = {"chance": "any", "within": "same sentences", "place": "same place"}
"""Of `neighbours.similarity`, by which words change places; those that a corpus has no room for are left out."""


def encoder_of(store: StoreWords) -> str:
    return encoder_name(store.encoder.name)


def _fused(name: str, results: Words) -> str:
    """A row with text, marked where that is of an encoder without training."""
    return f"{name} ({MARK})" if results.text_encoder.untrained and (name == TEXT or name in FUSIONS) else name


def _headline(score: Score, headline: str) -> str:
    """With its interval."""
    return f"{spread(score.metrics[headline])} ({ends(score.interval)})"


def _scores(task: TaskWords, columns: Mapping[str, str], metric: str) -> Table:
    """By state, a metric of several rows; columns: heading by row. The headline with its interval."""
    text = task.rows[TEXT].over_states if TEXT in task.rows else None  # the same for every state

    def cell(row: str, line: str) -> str:
        score = task.rows[row].lines.get(line, text)
        assert score is not None, (row, line)
        return _headline(score, metric) if metric == task.headline else spread(score.metrics[metric])

    rows = [[line, *(cell(row, line) for row in columns)] for line in task.rows[RAW].lines]
    return [metric, *columns.values()], rows


def _differences(task: TaskWords, columns: Mapping[str, str], corner: str) -> Table:
    """By state, how the pairs differ; columns: heading by pair. One comparison of a pair is corrected for their number:
    that over all states."""
    of_pairs, stay = [task.pairs[pair].lines for pair in columns], corrected(task.compared.values())
    rows = [[line, *(verdict(of[line], stay) for of in of_pairs)] for line in task.rows[RAW].lines]
    return [corner, *columns.values()], rows


def _with_text(task: TaskWords, name: str, results: Words) -> list[Table]:
    """An input alone and with text, and what text adds."""
    columns = {name: ALONE, **{f"{name}+{fusion}": _fused(fusion, results) for fusion in FUSIONS}}
    pairs = {f"{name}+{fusion} against {name}": _fused(fusion, results) for fusion in FUSIONS}
    return [
        _scores(task, columns | {TEXT: _fused(TEXT, results)}, task.headline),
        _differences(task, pairs, "against alone"),
    ]


def by_task(results: Words) -> dict[str, list[tuple[StoreWords, TaskWords]]]:
    """By task, every store that has it."""
    pairs: dict[str, list[tuple[StoreWords, TaskWords]]] = {}
    for store in results.stores:
        for task in store.tasks:
            pairs.setdefault(task.task, []).append((store, task))
    return pairs


def _summary(of_stores: Sequence[tuple[StoreWords, TaskWords]]) -> Table:
    """A line a store: the headline of every input alone, the mean over its states."""
    first = of_stores[0][1]
    names = [name for name in INPUTS if name in first.rows]
    cells = [
        [store.store, *(_headline(task.rows[name].over_states, task.headline) for name in names)]
        for store, task in of_stores
    ]
    return [first.headline, *names], cells


def _layers(of_stores: Sequence[tuple[StoreWords, TaskWords]]) -> Table:
    """Layer by layer, raw frames and word means of all encoders side by side."""
    columns = [(store.store, task, row) for store, task in of_stores for row in (RAW, WORDS)]
    states = dict.fromkeys(state for _, task in of_stores for state in task.rows[RAW].states)
    rows = [
        [
            state,
            *(
                spread(score.metrics[task.headline]) if (score := task.rows[row].states.get(state)) else NONE
                for _, task, row in columns
            ),
        ]
        for state in states
    ]
    return [of_stores[0][1].headline, *(f"{name}, {row}" for name, _, row in columns)], rows


def _lns(states: Sequence[int], lns: Similarity) -> Table:
    """By state, the overlap, the mean over k, and what each null gives."""
    nulls = [name for name in NULLS if lns.states[0].mean.nulls[name]]
    heading = ["LNS", "mean over k", *(f"chance ({NULLS[name]}): mean, 95th percentile" for name in nulls), "p"]
    rows = []
    for state, of_state in zip(states, lns.states, strict=True):
        mean = of_state.mean
        cells = [f"{null.mean:.3f}, {null.p95:.3f}" for name in nulls if (null := mean.nulls[name])]
        value = f"{mean.value:.3f} ({ends(mean, scale=1, digits=3)})"
        rows.append([f"state {state}", value, *cells, f"{mean.p:.2g}"])
    return heading, rows


def _lns_by_k(states: Sequence[int], lns: Similarity) -> Table:
    heading = ["LNS by k", *(f"state {state}" for state in states)]
    return heading, [
        [str(k), *(f"{of.by_k[q].value:.3f} (p {of.by_k[q].p:.2g})" for of in lns.states)] for q, k in enumerate(lns.ks)
    ]


def _neighbours(neighbourhoods: Neighbourhoods) -> Table:
    def listed(near: Sequence[Neighbour]) -> str:
        return ", ".join(f"{one.word} {one.cosine:.2f}" for one in near)

    rows = [
        [n.word, str(n.tokens), listed(n.acoustic), listed(n.lexical), ", ".join(n.common) or NONE]
        for n in neighbourhoods.shown
    ]
    return ["word", "said", f"sounds like (state {neighbourhoods.shown_state})", "lexical", "common"], rows


def _task_sections(task: TaskWords, results: Words) -> list[tuple[str, Table]]:
    alone, headline = {name: name for name in INPUTS}, task.headline
    sections = [("alone", _scores(task, alone, m)) for m in (headline, *(m for m in task.metrics if m != headline))]
    against = {f"{WORDS} against {other}": f"against {other}" for other in CONTROLS}
    sections.append(("word means against the rest", _differences(task, against, f"{WORDS}, {headline}")))
    if task.fused:
        for name in FUSED:
            sections += [(f"{name} with text", rows) for rows in _with_text(task, name, results)]
        both = {f"{WORDS}+{f} against {RAW}+{f}": _fused(f, results) for f in FUSIONS}
        sections.append(("word means with text against raw frames with text", _differences(task, both, headline)))
    return sections


def _said(task: TaskWords) -> list[str]:
    remarks = {row: of.over_states.remarks for row, of in task.rows.items()}  # those of all its states together
    return [*remark_lines(remarks), *task.verdicts, "No state is chosen: all are shown, and a mean over them."]


def _task_legend(task: TaskWords) -> list[str]:
    count, stride = len(task.seeds), task.settings.stride
    rate = task.encoder.frame_rate
    units = ", ".join(f"{name} {task.units_of[name]:.0f}" for name in INPUTS)
    return [
        f"Protocol {task.protocol.description}; {task.folds} folds, {counted(count, 'seed')}, "
        f"{task.fit:.0f} training utterances a fold. Metrics in points, {over_seeds(count)}, on "
        f"{task.tested} test utterances. A constant answer gives {points(task.constant)}.",
        intervals_line(task),
        *verdict_lines(task, task.compared, task.false_verdicts),
        *_by_state(task),
        f"Frames of {', '.join(FRAMES)} are means of {stride}, {1000 * stride / rate:.0f} ms each, some of them "
        "across the border of two words; word means are of frames as they are, and are never averaged. Units of a "
        f"training utterance: {units}.",
        *([] if task.fused else ["Text is fused for the first task alone; this one has its inputs alone."]),
        *about(replace(task, layer="every")),
    ]


def _by_state(task: TaskWords) -> list[str]:
    """What the comparisons by state are worth, where there are several states."""
    by_state = task.comparisons - len(task.compared)
    if not by_state:
        return []
    return [
        f"The comparisons that count are those of the {MEAN}, one for each pair of inputs. The other {by_state}, by "
        "state, show a course over the states: none is corrected, and each better or worse says so."
    ]


def _legend(results: Words) -> list[str]:
    text = results.text_encoder
    marked = f" {MARK}: its weights are random, so it knows which word it is and nothing of what it means."
    marked = marked if text.untrained else ""
    return [
        f"{WORDS}: acoustic word embeddings (AWE), means over a word's frames, the frames being those of the whole "
        f"utterance's encoding. {RAW}: all frames. {INSIDE}: the frames inside words. {RANDOM}: means of as many "
        f"random segments of the same lengths. {CENTRE}: a word's centre frame. {ATTENTION}: a word's frames, summed "
        "by a learned query of each state.",
        f"Every state has a classifier of its own: dense {FIRST}, ReLU, dense {SECOND}, ReLU on every unit (a frame or "
        "a word), the mean over units, a linear layer. The paper gives the two layers and leaves the pooling open; the "
        "mean after them is ours. Each keeps its epoch of the lowest validation loss.",
        f"Text: {text.name}, one vector a word.{marked} Concatenated: each unit with the "
        f"vector of the word that holds it, zeros where none does. {SPEECH_ASKS}: cross-attention whose query is "
        f"each acoustic unit, keys and values the utterance's words as text. {TEXT_ASKS}: the query is each word as "
        "text, keys and values the acoustic units. The result is added to the query before the first ReLU.",
        *(f"Left out of {line}." for line in results.left_out),
    ]


def _words_line(store: StoreWords) -> str:
    counts = ", ".join(f"{count} {source}" for source, count in store.sources.items())
    counted = f"{store.words:,} words in {store.utterances} utterances; word times: {counts}"
    pseudo = " Pseudo: equal stretches that are no words." if store.sources["pseudo"] else ""
    return " ".join([f"{counted}.{pseudo}", *(f"{remark}." for remark in describe_unaligned(store.unaligned))])


def _lns_legend(lns: Similarity) -> list[str]:
    return [
        f"Local neighbourhood similarity: the Jaccard overlap of a word type's k nearest in the acoustic and in the "
        f"lexical space, over {lns.types} types ({lns.tokens:,} words, all speakers; {lns.left_out} "
        f"types left out), k {lns.ks[0]} to {lns.ks[-1]}; no neighbour shares a sentence with the type. "
        f"Intervals: 95 %, over {lns.units} speakers; nothing is trained. Chance: {lns.draws} permutations of the "
        "lexical vectors, over all words, over those of the same sentences, over those of the same place in theirs, "
        "where there are enough; p is the largest of these, not corrected for the number of states and k.",
    ]


def markdown(results: Words) -> str:
    """The whole report as a page."""
    lines = ["# Do acoustic word embeddings carry more than frames?", ""]
    lines += [*bullets(_legend(results)), ""]
    lines += [*bullets(line for s in results.stores for t in s.tasks for line in t.verdicts), ""]
    for name, of_stores in by_task(results).items():
        lines += [
            section(2, f"All stores, {name}: the mean over states"),
            "",
            *markdown_table(*_summary(of_stores)),
            "",
        ]
        if len(of_stores) > 1:
            lines += [section(2, f"All stores, {name}: layer by layer"), "", *markdown_table(*_layers(of_stores)), ""]
    for store in results.stores:
        lines += [section(2, f"{store.corpus}, {encoder_of(store)}"), "", paragraph(_words_line(store)), ""]
        for task in store.tasks:
            lines += [section(3, task.task), "", paragraph(f"{preset_line(task.settings)}."), ""]
            title = ""
            for title_now, rows in _task_sections(task, results):
                if title_now != title:
                    lines += [section(4, f"{title_now[0].upper()}{title_now[1:]}"), ""]
                title = title_now
                lines += [*markdown_table(*rows), ""]
            lines += [*bullets((*_said(task), *_task_legend(task))), ""]
        lines += ["### Neighbourhoods of words", ""]
        near = store.neighbourhoods
        if near is None:
            lines += [paragraph(f"None: {store.why}."), ""]
            continue
        if results.text_encoder.untrained:
            lines += [f"**{MARK}**: its vectors know a word and its place, so nothing here is about meaning.", ""]
        lines += [*markdown_table(*_lns(store.states, near.lns)), ""]
        lines += [*markdown_table(*_lns_by_k(store.states, near.lns)), ""]
        lines += [*markdown_table(*_neighbours(near)), ""] if near.shown else []
        lines += [*bullets(_lns_legend(near.lns)), ""]
    return "\n".join(lines)


def _brief(task: TaskWords, names: Sequence[str]) -> Table:
    """By state, the headline of some rows."""
    heading, rows = _scores(task, {name: name for name in names}, task.headline)
    return ["reads", *heading[1:]], [[head, *(cell.split()[0] for cell in cells)] for head, *cells in rows]


def show(results: Words, console: Console) -> None:
    """What answers the question, narrow enough for a terminal; the rest is on the page."""
    untrained = results.text_encoder.untrained
    for store in results.stores:
        for task in store.tasks:
            console.print(rich_table(f"{store.store}, {task.task}: {task.headline}", *_brief(task, INPUTS)))
            if task.fused:
                heading, rows = _brief(task, [*(f"{n}+{f}" for n in (RAW, WORDS) for f in FUSIONS), TEXT])
                title = f"with text: {task.headline}" + (f", {MARK}" if untrained else "")
                last = list(zip(heading[1:], rows[-1][1:], strict=True))
                console.print(rich_table(title, ["row", rows[-1][0]], last))
            for line in task.verdicts:
                console.print(line, style="bold", highlight=False, markup=False)
        if store.neighbourhoods is None:
            line = f"{store.store}: no neighbourhoods of words: {store.why}"
            console.print(line, highlight=False, markup=False)
        else:
            heading, rows = _lns(store.states, store.neighbourhoods.lns)
            title = f"{store.store}: neighbourhoods of words, sound against text" + (f" ({MARK})" if untrained else "")
            console.print(rich_table(title, [heading[0], heading[1], heading[-1]], [[r[0], r[1], r[-1]] for r in rows]))
