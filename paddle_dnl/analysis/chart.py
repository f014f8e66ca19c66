# SPDX-License-Identifier: Apache-2.0
"""Table and chart of tools/attention_statistics.py."""

from pathlib import Path

from paddle_dnl.files.atomic import new_file

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

# Measure -> (heading, corresponding measure of even attention), in the order of table and chart.
COLUMNS = {
    "pairwise_category": ("pairwise, category", "random_category"),
    "pairwise_boundary": ("pairwise, boundary", "random_boundary"),
    "unary_boundary": ("unary, boundary", "random_boundary"),
    "total_category": ("total, category", "random_category"),
    "total_boundary": ("total, boundary", "random_boundary"),
}
_BARS = ("#2f6db5", "#c2571a", "#3c8d5a", "#7a5195", "#b8a01f", "#5b6873")


def random_row(results: dict[str, dict]) -> dict[str, dict]:
    """Returns measure -> its value for even attention, from the first model, because all have the same queries."""
    measures = next(iter(results.values()))["measures"]
    return {name: measures[random] for name, (_, random) in COLUMNS.items() if random in measures}


def _cell(value: dict | None) -> str:
    """Formats `mean ± standard error`."""
    if value is None:
        return "-"
    error = "" if value["standard_error"] is None else f" ± {value['standard_error']:.3f}"
    return f"{value['mean']:.3f}{error}"


def table(results: dict[str, dict]) -> str:
    """Returns a Markdown table with a row per model and one for even attention; mean ± standard error over images.

    Args:
        results: model name -> `AttentionStatistics.result()`.
    """
    lines = ["| model | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    rows = {"even attention (random)": random_row(results)}
    rows.update({name: result["measures"] for name, result in results.items()})
    for name, measures in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(measures.get(column)) for column in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def draw_chart(results: dict[str, dict], path: str | Path) -> None:
    """Writes a PNG with a bar per measure and model, and a line at the value of even attention."""
    figure, axes = plt.subplots(figsize=(9, 3.8), dpi=110)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    width, random = 0.8 / len(results), random_row(results)
    for number, (name, result) in enumerate(results.items()):
        found = [result["measures"].get(column) for column in COLUMNS]
        places = [i - 0.4 + (number + 0.5) * width for i, value in enumerate(found) if value]
        means = [value["mean"] for value in found if value]
        errors = [value["standard_error"] or 0 for value in found if value]
        color = _BARS[number % len(_BARS)]
        axes.bar(places, means, width * 0.92, yerr=errors, label=name, color=color, error_kw={"elinewidth": 1})
    for place, column in enumerate(COLUMNS):
        if column in random:
            label = "even attention" if place == 0 else None
            axes.hlines(random[column]["mean"], place - 0.45, place + 0.45, "#1f2933", linewidth=1.5, label=label)
    axes.set_xticks(np.arange(len(COLUMNS)), [heading for heading, _ in COLUMNS.values()], fontsize=9)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of attention")
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    with new_file(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)
