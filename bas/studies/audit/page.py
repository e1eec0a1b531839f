"""The report of an audit as a page and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from bas.report.format import NONE, encoder_name, estimate, points, spread
from bas.report.notes import about, false_verdicts_line, over_folds, preset_line, settings_line
from bas.report.table import Table, rich_table
from bas.stats import Paired, Spread, verdict_sentence
from bas.stats.ranking import Agreement, SlotEffects
from bas.studies.audit.results import Audit, Claim, SpaceAudit
from bas.util.markdown import bullets, markdown_table, paragraph, section


def _against(of: Paired | None) -> str:
    return NONE if of is None else f"{estimate(of.difference, of)}: {of.verdict}"


def _tau(of: Agreement | None) -> str:
    return NONE if of is None else f"{of.tau:+.2f} ± {of.tau_sd:.2f} ({of.rho:+.2f})"


def strategies(space: SpaceAudit, headline: str) -> Table:
    """For each strategy: the score its user gets, how well it ranks architectures, and its cost."""
    whole = next(row.cost for row in space.strategies if row.strategy == "exhaustive")
    heading = ["strategy", headline, "percentile", "regret", "tau of paths", "tau of theta", "cost"]
    rows = [
        [
            row.strategy,
            spread(row.score),
            NONE if row.percentile is None else f"{100 * row.percentile:.0f}",
            points(row.regret, "+"),
            _tau(row.searched.paths if row.searched else None),
            _tau(row.searched.beliefs if row.searched else None),
            f"{100 * row.cost / whole:.0f} %",
        ]
        for row in space.strategies
    ]
    return heading, rows


def against(space: SpaceAudit, headline: str, reference: str) -> Table:
    """Each strategy against random search at its cost and against the reference."""
    heading = ["strategy", f"{headline} of random search at its cost", "against it", f"against the {reference}"]
    rows = []
    for row in space.strategies:
        cells = [NONE, NONE]
        if row.searched:
            drawn = row.searched.random
            rank = "" if drawn.percentile is None else f", percentile {100 * drawn.percentile:.0f}"
            cells = [f"{points(drawn.mean)} ({drawn.tried:.1f} trained{rank})", _against(row.searched.against_random)]
        rows.append([row.strategy, *cells, _against(row.against_reference)])
    return heading, rows


def architectures(space: SpaceAudit, headline: str) -> Table:
    """All architectures, best first."""
    heading = ["architecture", headline, "params", "multiply-adds (G)"]
    return heading, [
        [row.architecture, spread(row.score), f"{row.parameters:,}", f"{row.cost / 1e9:.3g}"]
        for row in space.architectures
    ]


def effects(space: SpaceAudit) -> Table:
    """By slot and block: the mean with the block, and its difference from the mean of all, under each setting."""
    conditions = {"as planned": space.effects, **{spec: of.effects for spec, of in space.variants.items()}}

    def cell(of: SlotEffects, block: str) -> str:
        return f"{points(of.means[block])}: {estimate(of.effects[block].value, of.effects[block])}"

    rows = [
        [f"{part}: {block}", *(cell(of[part], block) for of in conditions.values())]
        for part, slot in space.effects.items()
        for block in slot.effects
    ]
    return ["block", *conditions], rows


def claims(planned: Mapping[str, Claim], variants: Mapping[str, Mapping[str, Claim]]) -> Table:
    """The claims of the paper, here and under each variant, and whether a conclusion flips."""
    conditions = {"as planned": planned, **variants}
    rows = []
    for name in planned:
        row = [of.get(name) for of in conditions.values()]
        cells = [f"{claim.conclusion}: {estimate(claim.value, claim)}" if claim else NONE for claim in row]
        conclusions = [claim.conclusion for claim in row if claim]
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


def sentences(results: Audit, space: SpaceAudit) -> list[str]:
    """The verdicts on the run's own strategy as sentences to quote; on every strategy where that one is missing."""
    where = f"{results.corpus} under {results.protocol.description}"
    searched = [row for row in space.strategies if row.searched]
    own = [row for row in searched if row.strategy == results.settings.strategy]
    lines = []
    for row in own or searched:
        name = f"{row.strategy} on {space.space}"
        random = row.searched.against_random if row.searched else None
        others = {"random search at its cost": random, f"the {results.reference}": row.against_reference}
        lines += [
            verdict_sentence(name, other, where, results.headline, difference, results.unit)
            for other, difference in others.items()
            if difference
        ]
    return lines


def warnings_of(space: SpaceAudit) -> list[str]:
    """The warnings about the decisions of the searches."""
    return [f"{strategy}: {line}" for strategy, selection in space.decisions.items() for line in selection.warnings]


def _beside(baselines: Mapping[str, Spread]) -> str:
    return ", ".join(f"{name} {spread(row)}" for name, row in baselines.items())


def summary(results: Audit, space: SpaceAudit) -> list[str]:
    """The range of scores in the space, and how well its architectures can be ranked."""
    of, ceiling = space.summary, space.summary.ceiling
    reach = f"{points(of.worst)} to {points(of.best)}, mean {points(of.mean)}"
    lines = [
        f"The space: {space.size} architectures, {results.headline} from {reach}.",
        f"Beside it: {_beside(space.baselines)}.",
        *(
            f"Under {spec}: mean of the space {points(variant.mean)}; {_beside(variant.baselines)}."
            for spec, variant in space.variants.items()
        ),
    ]
    if ceiling and of.split_half is not None:
        lines.append(
            f"Between architectures the true sd is {points(ceiling.architecture_sd)} points, the noise of one "
            f"training {points(ceiling.noise_sd)}; of the variance of means over {len(results.seeds)} seeds "
            f"{100 * ceiling.reliability:.0f} % is true (95 % interval {100 * ceiling.reliability_low:.0f} to "
            f"{100 * ceiling.reliability_high:.0f})."
        )
        lines.append(
            f"Half of the seeds against the other half: tau {of.split_half:+.2f}. A perfect predictor would reach "
            f"tau {ceiling.tau:+.2f} ({ceiling.low:+.2f} to {ceiling.high:+.2f}): the ceiling of both columns."
        )
    for name, taus in space.learning.items():
        epochs = sorted({taus.index(min(taus)), (len(taus) - 1) // 2, len(taus) - 1})
        each = ", ".join(f"{taus[e]:+.2f} in epoch {e + 1}" for e in epochs)
        lines.append(f"Learning: {name} loss ranks the architectures, trained alone, with tau {each}.")
    return lines + _false_verdicts(space)


def _false_verdicts(space: SpaceAudit) -> list[str]:
    return [false_verdicts_line(space.false_verdicts)]


def legend(results: Audit) -> list[str]:
    """Units, seeds, folds, the number of test utterances, and the meaning of the columns."""
    headline, seeds = results.headline, results.seeds
    counted = "1 seed" if len(seeds) == 1 else f"mean ± sd over {len(seeds)} seeds"
    draws = next((row.searched.random.draws for row in results.spaces[0].strategies if row.searched), 0)
    lines = [
        f"{headline} in points on {results.tested} test utterances {over_folds(results)} (protocol "
        f"{results.protocol.description}), {counted}; of variants: "
        f"seed {', '.join(map(str, results.variant_seeds))} alone.",
        f"Intervals: 95 %, jackknife-t over {results.units} units ({results.unit}). A verdict on two systems "
        "also needs the sign-flip test; blocks and claims are judged by the interval alone. Nothing is "
        "corrected for the number of questions.",
        f"{headline} of a strategy: the picks of every fold and seed, trained with that seed; of one drawn blindly: "
        "mean ± sd over architectures and seeds.",
        "Percentile: of the other architectures, how many the pick beats (50: a blind draw). Regret: points behind the "
        "best architecture, which is chosen on one half of the seeds and scored on the other, both ways (0 where all "
        "are equal, whatever the noise). Both use the trainings of the other seeds alone.",
        "Tau: Kendall's, of a search's scores with the mean accuracy, mean ± sd over folds and seeds (and Spearman's "
        "rho); of paths: "
        "one-hot in the trained supernet, valid loss; of theta: the product of probabilities.",
        "Cost: multiply-adds of search, selection and retraining, against training every architecture. Random search "
        "trains architectures in random order up to the same multiply-adds, and takes the lowest valid loss "
        f"(mean of {draws} draws); exhaustive trains all and does so.",
    ]
    if any(space.claims for space in results.spaces):
        lines.append(
            "Claims: an FFN in the first slot minus the other blocks there; in the later slots blocks with "
            f"attention minus an FFN; the simple FFN minus the {results.reference}, good enough where it is "
            f"surely less than {points(results.good_enough)} points behind. Flips: yes, where one confirms and "
            "another rejects; not the same, where one of them is undecided."
        )
    return lines + about(results)


def _tables(results: Audit, space: SpaceAudit) -> list[tuple[str, Table]]:
    headline = results.headline
    tables = [
        ("Strategies", strategies(space, headline)),
        ("Against random search and the reference", against(space, headline, results.reference)),
        ("Every architecture", architectures(space, headline)),
        ("What a block is worth", effects(space)),
        ("The claims of Fang et al. 2023", claims(space.claims, {k: v.claims for k, v in space.variants.items()})),
        ("What the searches decided", decisions(space)),
    ]
    return [(title, table) for title, table in tables if table[1]]


def markdown(results: Audit) -> str:
    """The whole report."""
    lines = [
        section(
            1,
            f"Audit: {results.corpus}, {encoder_name(results.encoder.name)}, layer {results.layer}, "
            f"{preset_line(results.settings)}, protocol {results.protocol.description}",
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
