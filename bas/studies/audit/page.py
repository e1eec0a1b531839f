"""An audit's report as a page and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from bas.report.old import noted, preset_told
from bas.report.table import markdown_table, rich_table
from bas.stats import NO_INTERVAL, Paired, between, verdict_sentence

FALSE = 0.05  # of verdicts, at most

Table = tuple[list[str], list[list[str]]]
"""Heading and rows."""


def _points(value: float | None, sign: bool = False) -> str:
    return "–" if value is None else f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def _spread(row: dict[str, Any]) -> str:
    """The mean, and the deviation where there is one: of a single seed there is none."""
    return _points(row["mean"]) + (f" ± {_points(row['sd'])}" if row["sd"] else "")


def _interval(value: dict[str, Any]) -> str:
    """Of an effect or a paired difference."""
    middle = value.get("difference", value.get("value"))
    return f"{_points(middle, True)} ({between(value['low'], value['high'])})"


def _against(value: dict[str, Any] | None) -> str:
    return "–" if value is None else f"{_interval(value)}: {value['verdict']}"


def _tau(agreement: dict[str, Any] | None) -> str:
    if agreement is None:
        return "–"
    return f"{agreement['tau']:+.2f} ± {agreement['tau_sd']:.2f} ({agreement['rho']:+.2f})"


def strategies(space: dict[str, Any], headline: str) -> Table:
    """Each strategy: what its user gets, how well it ranks, what it costs."""
    whole = next(row["cost"] for row in space["strategies"] if row["strategy"] == "exhaustive")
    heading = ["strategy", headline, "percentile", "regret", "tau of paths", "tau of theta", "cost"]
    rows = []
    for row in space["strategies"]:
        agreement = row.get("agreement", {})
        rows.append(
            [
                row["strategy"],
                _spread(row),
                "–" if row["percentile"] is None else f"{100 * row['percentile']:.0f}",
                _points(row["regret"], True),
                _tau(agreement.get("paths")),
                _tau(agreement.get("beliefs")),
                f"{100 * row['cost'] / whole:.0f} %",
            ]
        )
    return heading, rows


def against(space: dict[str, Any], headline: str, reference: str) -> Table:
    """Each strategy against random search at its cost and against the reference."""
    heading = ["strategy", f"{headline} of random search at its cost", "against it", f"against the {reference}"]
    rows = []
    for row in space["strategies"]:
        drawn = row.get("random")
        told = "–"
        if drawn:
            rank = "" if drawn["percentile"] is None else f", percentile {100 * drawn['percentile']:.0f}"
            told = f"{_points(drawn['mean'])} ({drawn['tried']:.1f} trained{rank})"
        sides = [_against(row.get(name)) for name in ("against_random", "against_reference")]
        rows.append([row["strategy"], told, *sides])
    return heading, rows


def architectures(space: dict[str, Any], headline: str) -> Table:
    """All of them, best first."""
    heading = ["architecture", headline, "params", "multiply-adds (G)"]
    rows = [
        [
            row["architecture"],
            _spread(row),
            f"{row['params']:,}",
            f"{row['cost'] / 1e9:.3g}",
        ]
        for row in space["architectures"]
    ]
    return heading, rows


def effects(space: dict[str, Any]) -> Table:
    """By slot and block, the mean with it less the mean of all, here and under each variant."""
    conditions = {"as planned": space["effects"], **{k: v["effects"] for k, v in space["variants"].items()}}
    rows = [
        [
            f"{part}: {block}",
            *(f"{_points(of[part][block]['mean'])}: {_interval(of[part][block])}" for of in conditions.values()),
        ]
        for part, blocks in space["effects"].items()
        for block in blocks
    ]
    return ["block", *conditions], rows


def claims(space: dict[str, Any]) -> Table:
    """The paper's claims, here and under each variant; whether a conclusion flips."""
    conditions = {"as planned": space["claims"], **{k: v["claims"] for k, v in space["variants"].items()}}
    rows = []
    for name in space["claims"]:
        cells = [
            f"{of[name]['conclusion']}: {_interval(of[name])}" if name in of else "–" for of in conditions.values()
        ]
        found = {of[name]["conclusion"] for of in conditions.values() if name in of}
        flips = "yes" if {"confirmed", "rejected"} <= found else "no" if len(found) == 1 else "not the same"
        rows.append([name, *cells, flips if len([c for c in cells if c != "–"]) > 1 else "–"])
    return ["claim", *conditions, "flips"], rows


def decisions(space: dict[str, Any]) -> Table:
    """What each strategy's searches decided, by slot."""
    rows = []
    for strategy, found in space["decisions"].items():
        for part, slot in found["slots"].items():
            chosen = ", ".join(f"{block} {100 * share:.0f} %" for block, share in slot["frequency"].items())
            surely = ["–" if slot[name] is None else f"{slot[name]:.2f}" for name in ("margin", "entropy")]
            rows.append([strategy, part, chosen, *surely])
    return ["strategy", "slot", "chosen", "margin", "entropy"], rows


def sentences(results: dict[str, Any], space: dict[str, Any]) -> list[str]:
    """The verdict on the run's own strategy, in words, for quoting; on every strategy where that was not audited."""
    headline, unit = results["headline"], results["unit"]
    where = f"{results['corpus']} under {results['protocol']['told']}"
    searched = [row for row in space["strategies"] if "against_random" in row]
    own = [row for row in searched if row["strategy"] == results["settings"]["strategy"]]
    lines = []
    for row in own or searched:
        name = f"{row['strategy']} on {space['space']}"
        others = {"against_random": "random search at its cost", "against_reference": f"the {results['reference']}"}
        for key, other in others.items():
            value = Paired(**{k: v for k, v in row[key].items() if k != "verdict"})
            lines.append(verdict_sentence(name, other, where, headline, value, unit))
    return lines


def warned(space: dict[str, Any]) -> list[str]:
    """What to mind of the searches' decisions."""
    return [f"{strategy}: {line}" for strategy, found in space["decisions"].items() for line in found["warnings"]]


def _beside(baselines: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{name} {_spread(row)}" for name, row in baselines.items())


def summary(results: dict[str, Any], space: dict[str, Any]) -> list[str]:
    """The space: what there is to find, and how well it can be ranked."""
    of, ceiling = space["summary"], space["summary"]["ceiling"]
    spread = f"{_points(of['worst'])} to {_points(of['best'])}, mean {_points(of['mean'])}"
    lines = [
        f"The space: {space['size']} architectures, {results['headline']} from {spread}.",
        f"Beside it: {_beside(space['baselines'])}.",
        *(
            f"Under {spec}: mean of the space {_points(found['mean'])}; {_beside(found['baselines'])}."
            for spec, found in space["variants"].items()
        ),
    ]
    if ceiling:
        lines.append(
            f"Between architectures the true sd is {_points(ceiling['architecture_sd'])} points, the noise of one "
            f"training {_points(ceiling['noise_sd'])}; of the variance of means over {len(results['seeds'])} seeds "
            f"{100 * ceiling['reliability']:.0f} % is true (95 % interval {100 * ceiling['reliability_low']:.0f} to "
            f"{100 * ceiling['reliability_high']:.0f})."
        )
        lines.append(
            f"Half of the seeds against the other half: tau {of['split_half']:+.2f}. A perfect predictor would reach "
            f"tau {ceiling['tau']:+.2f} ({ceiling['low']:+.2f} to {ceiling['high']:+.2f}): the ceiling of both columns."
        )
    for name, taus in space["learning"].items():
        epochs = sorted({taus.index(min(taus)), (len(taus) - 1) // 2, len(taus) - 1})
        each = ", ".join(f"{taus[e]:+.2f} in epoch {e + 1}" for e in epochs)
        lines.append(f"Learning: {name} loss ranks the architectures, trained alone, with tau {each}.")
    told = {
        "a_a": "A/A check, each architecture against itself under other seeds",
        "null": "Simulated null, two architectures that swap sides by coin for every unit",
    }
    for name, text in told.items():
        found = space["false_verdicts"][name]
        if found is None:
            lines.append(f"{text}: needs more units or seeds.")
            continue
        ends = between(found["low"], found["high"], "")
        interval = ends if ends == NO_INTERVAL else f"95 % interval {ends}"
        lines.append(
            f"{text}: {found['count']} of {found['total']} verdicts are false ({_points(found['rate'])} %, {interval})."
            + " More than 5 %: a seed moves all units at once here, which no verdict holds; believe none of them."
            * (name == "a_a" and found["rate"] > FALSE)
        )
    return lines


def legend(results: dict[str, Any]) -> list[str]:
    """Units, seeds, folds, the number of test utterances, and what the columns are."""
    headline, protocol, seeds = results["headline"], results["protocol"], results["seeds"]
    counted = "1 seed" if len(seeds) == 1 else f"mean ± sd over {len(seeds)} seeds"
    draws = next((row["random"]["draws"] for row in results["spaces"][0]["strategies"] if "random" in row), 0)
    return [
        f"{headline} in points on {results['tested']} test utterances {_over_folds(results)} (protocol "
        f"{protocol['told']}), {counted}; of variants: seed {', '.join(map(str, results['variant_seeds']))} alone.",
        f"Intervals: 95 %, jackknife-t over {results['units']} units ({results['unit']}). A verdict on two systems "
        "also needs the sign-flip test; what is said of blocks and claims goes by the interval alone. Nothing is "
        "corrected for the number of questions.",
        f"{headline} of a strategy: the picks of every fold and seed, trained with that seed; of one drawn blindly: "
        "mean ± sd over architectures and seeds.",
        "Percentile: of the other architectures, how many the pick beats (50: a blind draw). Regret: points behind the "
        "best architecture, which is chosen on one half of the seeds and valued on the other, both ways (0 where all "
        "are equal, whatever the noise). Both by the trainings of the seeds that are not the pick's own.",
        "Tau: Kendall's, of a search's scores with the mean accuracy, mean ± sd over folds and seeds (and Spearman's "
        "rho); of paths: "
        "one-hot in the trained supernet, valid loss; of theta: the product of probabilities.",
        "Cost: multiply-adds of search, selection and retraining, against training every architecture. Random search "
        "trains architectures in random order while the same multiply-adds last, and takes the lowest valid loss "
        f"(mean of {draws} draws); exhaustive trains all and does so.",
        *(
            [
                "Claims: an FFN in the first slot less the other blocks there; in the later slots blocks with "
                f"attention less an FFN; the simple FFN less the {results['reference']}, good enough where it is "
                f"surely less than {_points(results['good_enough'])} points behind. Flips: yes, where one confirms and "
                "another rejects; not the same, where one of them is undecided."
            ]
            * any(space["claims"] for space in results["spaces"])
        ),
        *noted(results),
    ]


def _tables(results: dict[str, Any], space: dict[str, Any]) -> list[tuple[str, Table]]:
    headline = results["headline"]
    found = [
        ("Strategies", strategies(space, headline)),
        ("Against random search and the reference", against(space, headline, results["reference"])),
        ("Every architecture", architectures(space, headline)),
        ("What a block is worth", effects(space)),
        ("The claims of Fang et al. 2023", claims(space)),
        ("What the searches decided", decisions(space)),
    ]
    return [(title, table) for title, table in found if table[1]]


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    encoder = results["encoder"]["name"].rstrip("/").rpartition("/")[2]
    lines = [
        f"# Audit: {results['corpus']}, {encoder}, layer {results['layer']}, {preset_told(results['settings'])}, "
        f"protocol {results['protocol']['told']}"
    ]
    for space in results["spaces"]:
        lines += ["", f"## {space['space']}", "", *(f"- {line}" for line in sentences(results, space))]
        lines += [f"- {line}" for line in summary(results, space)]
        for title, (heading, rows) in _tables(results, space):
            lines += ["", f"### {title}", "", *markdown_table(heading, rows)]
        lines += ["", *(f"- {line}" for line in warned(space))] if warned(space) else []
    settings = "Settings: " + ", ".join(f"{k}={v}" for k, v in results["settings"].items())
    return "\n".join([*lines, "", *(f"- {line}" for line in legend(results)), "", settings]) + "\n"


def show(results: dict[str, Any], console: Console) -> None:
    """The same on the terminal."""
    for space in results["spaces"]:
        for title, (heading, rows) in _tables(results, space):
            told = f"{space['space']}: {title[0].lower()}{title[1:]} (protocol {results['protocol']['told']})"
            console.print(rich_table(told, heading, rows))
        _lines([*warned(space), *summary(results, space)], console)
        for line in sentences(results, space):
            console.print(f"[bold]{line}", highlight=False)
    _lines(legend(results), console)


def _lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _over_folds(results: dict[str, Any]) -> str:
    folds = results["folds"]
    return f"pooled over {folds} folds" if results["pooled"] else f"within each of {folds} folds, then averaged"
