# SPDX-License-Identifier: Apache-2.0
"""Bar chart of latency, throughput and memory."""

from pathlib import Path

from paddle_dnl.files.atomic import new_file

_COLORS = {"paddle": "#33658a", "onednn": "#86bbd8", "onnxruntime": "#f26419", "int8": "#f6ae2d"}
_COLORS |= {"openvino": "#55a630", "openvino_bf16": "#2b9348", "openvino_int8": "#aacc00"}


def draw(rows: list, path: Path, title: str) -> None:
    """Writes a PNG with one bar per row and panel.

    Args:
        rows: list of `timings.Row`.
        path: path of the PNG.
        title: text above the panels.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [f"{r.backend}, {r.threads} thr., batch {r.batch}, {r.width}x{r.height}" for r in rows]
    places = range(len(rows))
    colors = [_COLORS.get(r.backend, "#555555") for r in rows]
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 0.42 * len(rows) + 1.8), sharey=True)
    panels = (
        ("latency in ms: median, line to p90 (lower is better)", [1000 * r.median for r in rows]),
        ("images per second (higher is better)", [r.throughput for r in rows]),
        ("peak memory of the process in MB (lower is better)", [r.peak / 1e6 for r in rows]),
    )
    for axis, (label, values) in zip(axes, panels, strict=True):
        axis.barh(places, values, color=colors)
        axis.set_xlabel(label, fontsize=8)
        ends = list(values)
        if axis is axes[0]:
            tails = [1000 * max(0.0, r.p90 - r.median) for r in rows]
            axis.errorbar(values, places, xerr=[[0] * len(rows), tails], fmt="none", ecolor="#222222", capsize=3)
            ends = [value + tail for value, tail in zip(values, tails, strict=True)]
        axis.set_xlim(0, 1.18 * max(ends))
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        for place, value, end in zip(places, values, ends, strict=True):
            axis.text(end + 0.02 * max(ends), place, f"{value:.4g}", va="center", fontsize=7, color="#222222")
    axes[0].set_yticks(list(places), names, fontsize=8)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
