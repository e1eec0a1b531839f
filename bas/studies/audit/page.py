"""The report of an audit as a page and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from bas.report.format import NONE, encoder_name, ends, estimate, points, spread, verdict
from bas.report.notes import corrected, settings_line
from bas.report.table import Table, rich_table
from bas.stats import Estimate
from bas.stats.ranking import SlotEffects
from bas.studies.audit.notes import NOTHING, compared, legend, mark_uncorrected, sentences, summary, warnings_of, whose
from bas.studies.audit.results import ArchitectureRow, Audit, Claim, SpaceAudit, StrategyRow
from bas.util.markdown import bullets, markdown_table, paragraph, section


def _percent(of: Estimate | None, sign: str = "") -> str:
    """A percentile, whole, with its interval; a difference of two has a sign."""
    if of is None:
        return NONE
    interval = "" if of.low == of.high else f" ({ends(of, sign, digits=0)})"
    return f"{100 * of.value:{sign}.0f}{interval}"


def _regret(of: Estimate | None, sampled: bool) -> str:
    """Among all, a regret below 0 is none that shows: its number would read as better than the best."""
    if of is None:
        return NONE
    return f"{points(of.value) if of.value > 0 or sampled else 'none seen'} ({ends(of, '+')})"


def _tau(of: Estimate | None) -> str:
    return NONE if of is None else f"{of.value:+.2f} ({ends(of, '+', scale=1, digits=2)})"


def _name(row: StrategyRow, space: SpaceAudit) -> str:
    return "all of the sample" if row.strategy == "exhaustive" and space.sample else row.strategy


def strategies(space: SpaceAudit, headline: str) -> Table:
    """For each strategy: the score its user gets, how well it ranks architectures, and its cost."""
    whole = next(row.cost for row in space.strategies if row.strategy == "exhaustive")
    ranked = ["percentile", "regret", "tau of paths", "tau of theta"] if space.summary.ranks else []
    rows = []
    for row in space.strategies:
        paths, beliefs = (row.searched.paths, row.searched.beliefs) if row.searched else (None, None)
        ranks = [_percent(row.percentile), _regret(row.regret, bool(space.sample)), _tau(paths), _tau(beliefs)]
        score = spread(row.score) if row.score else NONE
        rows.append([_name(row, space), score, *ranks[: len(ranked)], f"{100 * row.cost / whole:.0f} %"])
    return ["strategy", headline, *ranked, "cost"], rows


def against(space: SpaceAudit, headline: str, reference: str) -> Table:
    """Each strategy against random search at its cost and against the reference."""
    of = compared(space, reference)
    stay = corrected(of.values())
    cells = {name: verdict(one, stay) for name, one in of.items()}
    ranked = ["percentile", "ahead of it"] if space.summary.ranks else []
    rows = []
    for row in space.strategies:
        drawn, random, ranks = row.searched.random if row.searched else None, NONE, [NONE, NONE]
        if drawn:
            random = f"{points(drawn.mean)} ({drawn.tried:.1f} tried)"
            ranks = [_percent(drawn.percentile), _percent(row.searched.ahead if row.searched else None, "+")]
        names = (f"{row.strategy} against {other}" for other in ("random search", f"the {reference}"))
        verdicts = [cells.get(name, NONE) for name in names]
        rows.append([_name(row, space), random, *ranks[: len(ranked)], *verdicts])
    heading = ["strategy", f"{headline} of random search at its cost", *(f"its {name}" for name in ranked[:1])]
    heading += [*(f"percentile {name}" for name in ranked[1:]), "against it", f"against the {reference}"]
    return heading, rows


def architectures(rows: Sequence[ArchitectureRow], headline: str, shrunken: bool = True) -> Table:
    """Architectures, in the order of the rows: of those that stand for the space, best first. shrunken: no pick is."""
    heading = ["architecture", headline, *["shrunken"] * shrunken, "params", "multiply-adds (G)"]
    return heading, [
        [
            *(row.architecture, spread(row.score), *[points(row.shrunken)] * shrunken),
            *(f"{row.parameters:,}", f"{row.cost / 1e9:.3g}"),
        ]
        for row in rows
    ]


def effects(space: SpaceAudit) -> Table:
    """By slot and block: the mean with the block, and its difference from the mean of all, under each setting."""
    conditions = {"as planned": space.effects, **{spec: of.effects for spec, of in space.variants.items()}}
    slots = space.effects.items()
    each = [of[part].effects[b] for part, slot in slots for b in slot.effects for of in conditions.values()]
    marked = iter(mark_uncorrected([effect.verdict for effect in each], [effect.p for effect in each]))

    def cell(of: SlotEffects, block: str) -> str:
        effect, verdict = of.effects[block], next(marked)
        judged = "" if verdict in NOTHING else f": {verdict}"
        return f"{points(of.means[block])}: {estimate(effect.value, effect)}{judged}"

    rows = [
        [f"{part}: {block}", *(cell(of[part], block) for of in conditions.values())]
        for part, slot in slots
        for block in slot.effects
    ]
    return ["block", *conditions], rows


def claims(planned: Mapping[str, Claim], variants: Mapping[str, Mapping[str, Claim]]) -> Table:
    """The claims of the paper, here and under each variant, and whether a conclusion flips."""
    conditions = {"as planned": planned, **variants}
    all_of = [claim for name in planned for of in conditions.values() if (claim := of.get(name))]
    marked = iter(mark_uncorrected([claim.conclusion for claim in all_of], [claim.p for claim in all_of]))
    rows = []
    for name in planned:
        row = [of.get(name) for of in conditions.values()]
        conclusions = [next(marked) for claim in row if claim]
        each = iter(conclusions)
        cells = [f"{next(each)}: {estimate(claim.value, claim)}" if claim else NONE for claim in row]
        if {"confirmed", "rejected"} <= set(conclusions):
            flips = "yes"
        else:
            flips = "no" if len(set(conclusions)) == 1 else "not the same"
        rows.append([name, *cells, flips if len(conclusions) > 1 else NONE])
    return ["claim", *conditions, "flips"], rows


def decisions(space: SpaceAudit) -> Table:
    """What the searches of each strategy decided, by slot."""
    rows = []
    for strategy, selection in space.decisions.items():
        for part, slot in selection.slots.items():
            chosen = ", ".join(f"{block} {100 * share:.0f} %" for block, share in slot.frequency.items())
            surely = [NONE if value is None else f"{value:.2f}" for value in (slot.margin, slot.entropy)]
            rows.append([strategy, part, chosen, *surely])
    return ["strategy", "slot", "chosen", "margin", "entropy"], rows


def _tables(results: Audit, space: SpaceAudit) -> list[tuple[str, Table]]:
    headline = results.headline
    tables = [
        ("Strategies", strategies(space, headline)),
        ("Against random search and the reference", against(space, headline, results.reference)),
        (
            f"The {space.sample.drawn} that were drawn" if space.sample else "Every architecture",
            architectures(space.architectures, headline),
        ),
        ("Picked, and not drawn", architectures(space.sample.picked if space.sample else (), headline, shrunken=False)),
        ("What a block is worth", effects(space)),
        (
            f"The claims of Fang et al. 2023 ({whose(results.settings)})",
            claims(space.claims, {k: v.claims for k, v in space.variants.items()}),
        ),
        ("What the searches decided", decisions(space)),
    ]
    return [(title, table) for title, table in tables if table[1]]


def markdown(results: Audit) -> str:
    """The whole report."""
    lines = [
        section(
            1,
            f"Audit: {results.corpus}, {encoder_name(results.encoder.name)}, layer {results.layer}, "
            f"{whose(results.settings)}, protocol {results.protocol.description}",
        )
    ]
    for space in results.spaces:
        lines += ["", section(2, space.space), "", *bullets(sentences(results, space))]
        lines += bullets(summary(results, space))
        for title, (heading, rows) in _tables(results, space):
            lines += ["", section(3, title), "", *markdown_table(heading, rows)]
        if warnings := warnings_of(space):
            lines += ["", *bullets(warnings)]
    return "\n".join([*lines, "", *bullets(legend(results)), "", paragraph(settings_line(results.settings))]) + "\n"


def show(results: Audit, console: Console) -> None:
    """Show the report on the terminal."""
    for space in results.spaces:
        for title, (heading, rows) in _tables(results, space):
            name = f"{space.space}: {title[0].lower()}{title[1:]} (protocol {results.protocol.description})"
            console.print(rich_table(name, heading, rows))
        _lines([*warnings_of(space), *summary(results, space)], console)
        for line in sentences(results, space):
            console.print(line, style="bold", highlight=False)
    _lines(legend(results), console)


def _lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False)
