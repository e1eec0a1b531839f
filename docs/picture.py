"""The README's picture: every model of a comparison with its interval. `python docs/picture.py runs/NAME OUT.svg`."""

from __future__ import annotations

import sys
from pathlib import Path

import bas


def draw(folder: Path, out: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "bas", "svg.fonttype": "none"})
    from matplotlib import pyplot

    comparison = bas.load_results(folder)
    rows = list(reversed(comparison.rows))
    figure, axes = pyplot.subplots(figsize=(7, 0.42 * len(rows) + 0.9), layout="constrained")
    for y, row in enumerate(rows):
        mean, (low, high) = row.metrics[comparison.headline].mean, (row.interval.low, row.interval.high)
        axes.plot([100 * low, 100 * high], [y, y], color="0.6", linewidth=2, zorder=1)
        axes.scatter([100 * mean], [y], color="tab:orange" if row.row.startswith("BAS") else "tab:blue", zorder=2)
    axes.set_yticks(range(len(rows)), [row.row for row in rows])
    axes.set_xlabel(f"{comparison.headline} in points, 95 % interval over {comparison.unit}s")
    title = f"{comparison.corpus}, {comparison.encoder.name}, {comparison.protocol.rule}"
    axes.set_title(title, fontsize="medium", loc="left")
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
