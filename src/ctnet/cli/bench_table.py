"""The tables of ctnet bench."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from ctnet.cli.console import Terminal

TITLES = {
    "inference": "inference, from images in memory to boxes in pixels",
    "train": "training step, loading left out",
    "data": "loader, reading to batch",
}
WIDTH = 132  # columns of the table; narrower terminals wrap lines instead of cutting figures


def print_document(document: Mapping[str, Any]) -> None:
    """Print subject, machine, rows and the comparison with a baseline."""
    console = Terminal()
    console.width = max(console.width, WIDTH)
    for sentence in _facts(document):
        console.print(sentence)
    console.print(_table(document))
    for row in document["rows"]:
        if row["failure"]:
            console.print(f"{row['runtime']} at {row['batch']}: {row['failure']}")
    if document["gate"]:
        console.print(_gate_table(document["gate"]))


def _facts(document: Mapping[str, Any]) -> list[str]:
    subject, machine, settings = document["subject"], document["machine"], document["settings"]
    height, width = subject["image_size"]
    source = f", {subject['source']}" if "source" in subject else ""
    accelerator = f", {machine['device']} {machine['device_name']}" if machine["device_name"] else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    lines = [
        f"{TITLES[document['kind']]}: {subject['recipe']}{source}, {subject['classes']} classes, {height} x {width}",
        f"warm-up {settings['warmup']}, timed {settings['iterations']} runs, times in ms, of parts the median; "
        f"data {settings['data']}",
        f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['instruction_sets'])}, "
        f"{machine['threads']} threads{accelerator}",
        versions,
    ]
    if document["matmul_gflops"]:
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in document["matmul_gflops"].items())
        gigaflops = subject["operations_per_image"] / 1e9
        lines.append(f"limit: matrix products at {rates} GFLOP/s; {gigaflops:.1f} GFLOP an image forward")
    kinds = {row["memory"]["kind"] for row in document["rows"] if row["memory"]}
    lines += [f"peak MB: {kind}" for kind in sorted(kinds)]
    if document["reference"]:
        reference = document["reference"]
        published = ", ".join(f"{number}: {rate:g}" for number, rate in reference["published"].items())
        by = "batch" if reference["kind"] == "inference" else "devices"
        lines.append(f"{reference['name']}: {reference['title']}; images/s by {by}: {published}")
        if reference["not_shown"]:
            lines.append(f"note: {reference['name']} is not shown beside the rows: {reference['not_shown']}")
        elif reference["images_per_s"]:
            ours = "our forward pass" if reference["kind"] == "inference" else "our step"
            lines.append(f"x is {ours} relative to it")
        else:
            lines.append(f"note: {reference['name']} is not shown beside the rows: it is of other batches")
    return lines


def _table(document: Mapping[str, Any]) -> Table:
    rows, reference = document["rows"], document["reference"]
    reference = reference if reference and reference["images_per_s"] else None
    stages = list(dict.fromkeys(name for row in rows for name in row["stages_ms"]))
    with_limit, with_memory = bool(document["matmul_gflops"]), any(row["memory"] for row in rows)
    table = Table("runtime", box=box.SIMPLE_HEAD, pad_edge=False)
    names = ["batch", "images/s", "median", "p90", "p99", *stages]
    names += [*(["of limit"] if with_limit else []), *(["peak MB"] if with_memory else [])]
    for name in [*names, *([reference["name"]] if reference else [])]:
        table.add_column(name, justify="right")
    for row in rows:
        precision = f" {row['precision']}" if row["precision"] else ""
        cells = [row["runtime"] + precision, str(row["batch"])]
        if row["failure"]:
            table.add_row(*cells, "failed", style="red")
            continue
        cells += [f"{row['images_per_s']:.2f}", *(f"{value:.1f}" for value in row["latency_ms"].values())]
        cells += [f"{row['stages_ms'][name]['median']:.1f}" for name in stages]
        if with_limit:
            cells.append(f"{100 * row['limit_share']:.0f} %")
        if with_memory:
            cells.append(f"{row['memory']['peak'] / 1e6:.0f}" if row["memory"] else "-")
        if reference:
            cells.append(_beside(row, reference["images_per_s"].get(str(row["batch"]))))
        table.add_row(*cells)
    return table


def _beside(row: Mapping[str, Any], published: float | None) -> str:
    """Return a published rate and the measured forward pass relative to it."""
    if published is None:
        return "-"
    forward = row["stages_ms"].get("forward")
    ours = 1e3 * row["batch"] / forward["median"] if forward else row["images_per_s"]
    return f"{published:.2f} ({ours / published:.2f}x)"


def _gate_table(gate: Mapping[str, Any]) -> Table:
    verdict = "reached" if gate["passed"] else "NOT reached"
    title = f"baseline {verdict}, {100 * gate['max_regress']:g} % slower is allowed"
    table = Table("runtime", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("batch", "was", "now", "change"):
        table.add_column(name, justify="right")
    for row in gate["rows"]:
        now = "-" if row["now"] is None else f"{row['now']:.2f}"
        change = "missing" if row["change"] is None else f"{100 * row['change']:+.1f} %"
        style = "" if row["passed"] else "red"
        table.add_row(row["runtime"], str(row["batch"]), f"{row['baseline']:.2f}", now, change, style=style)
    return table
