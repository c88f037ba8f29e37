"""The report's page: one HTML file with the images beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape as escape_html
from typing import Any

from ctnet.eval.coco import percent
from ctnet.eval.keypoints import PCK_AT
from ctnet.eval.protocol import sentence
from ctnet.eval.scorer import COCO, KEYPOINTS
from ctnet.terminal import printable


def escape(text: str) -> str:
    """Return the text escaped for HTML, control characters written out."""
    return escape_html(printable(text))


STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #282c32; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; }
.quiet { color: #6a7079; }
.warning { border-left: 4px solid #f59e0b; background: #fffbeb; padding: .4rem .8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem; border-bottom: 1px solid #e3e5e8; text-align: right; }
th { font-weight: 600; }
.names th:first-child, .names td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
img { max-width: 100%; height: auto; border: 1px solid #e3e5e8; border-radius: 4px; }
figure { margin: 0 0 1.6rem; }
.sheet { display: flex; flex-wrap: wrap; gap: 1rem; }
.sheet figure { width: 21rem; }
figcaption { margin-bottom: .3rem; overflow-wrap: anywhere; }"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="quiet">{data}</p>
<p>{protocol}</p>
{warnings}
<h2>{metrics_title}, x100</h2>
<div class="scroll"><table>
<tr>{number_names}</tr>
<tr>{numbers}</tr>
</table></div>
<h2>Classes</h2>
<div class="scroll"><table class="names">
<tr><th>class</th><th>boxes</th>{class_numbers}</tr>
{classes}
</table></div>
{points}
<h2>Precision and recall</h2>
<p><img src="precision_recall.png" alt="precision over recall"></p>
<p class="quiet">The values are in <a href="precision_recall.csv">precision_recall.csv</a>.</p>
<h2>Confusion</h2>
<p class="quiet">Pairs of IoU {iou} and more, detections of score {score} and more. A row is a true
class; its last cell counts missed objects. The last row counts detections where nothing is.
<a href="confusion.csv">confusion.csv</a></p>
<p><img src="confusion.png" alt="confusion matrix"></p>
<h2>Images with most errors</h2>
{worst}
</body>
</html>
"""


def page(
    title: str,
    document: Mapping[str, Any],
    matching: Mapping[str, float],
    worst: Sequence[tuple[str, str]],
    misplaced: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page of an evaluation document.

    `matching` has the confusion matrix's `iou` and `score`, `worst` lists (image, caption), `misplaced` too, of objects
    whose key points are far from where they belong.
    """
    data, metrics = document["data"], document["metrics"]
    scorer = KEYPOINTS if "per_point" in document else COCO
    classes = [
        f"<tr><td>{escape(name)}</td><td>{row['count']}</td>"
        + "".join(f"<td>{percent(row[number])}</td>" for number in scorer.per_class)
        + "</tr>"
        for name, row in document["per_class"].items()
    ]
    return PAGE.format(
        style=STYLE,
        title=escape(title),
        data=escape(f"{data['path']}, split {data['split']}: {data['images']} images, {data['boxes']} boxes"),
        metrics_title=escape(scorer.title),
        protocol=escape(sentence(document["protocol"])),
        warnings="\n".join(f'<p class="warning">{escape(text)}</p>' for text in document["warnings"]),
        class_numbers="".join(f"<th>{name}</th>" for name in scorer.per_class),
        number_names="".join(f"<th>{name}</th>" for name in metrics),
        numbers="".join(f"<td>{percent(value)}</td>" for value in metrics.values()),
        classes="\n".join(classes),
        points=_points(document["per_point"], misplaced) if "per_point" in document else "",
        worst=_figures(worst) or "<p>No image has an error.</p>",
        **matching,
    )


def _figures(images: Sequence[tuple[str, str]]) -> str:
    return "\n".join(
        f'<figure><figcaption>{escape(caption)}</figcaption><img src="{escape(file)}" alt="" loading="lazy"></figure>'
        for file, caption in images
    )


def _points(per_point: Mapping[str, Mapping[str, float | None]], misplaced: Sequence[tuple[str, str]]) -> str:
    """Return the section about key points."""
    rows = "\n".join(
        f"<tr><td>{escape(name)}</td><td>{percent(row['NME'])}</td><td>{percent(row['PCK'])}</td></tr>"
        for name, row in per_point.items()
    )
    return f"""<h2>Key points, x100</h2>
<p class="quiet">NME is the mean distance from the labelled point, relative to the square root of the box's area; PCK
the share of labelled points that were placed within {PCK_AT:g} of the box's longer side, missed objects included.</p>
<div class="scroll"><table class="names">
<tr><th>point</th><th>NME</th><th>PCK</th></tr>
{rows}
</table></div>
<h2>Objects whose key points are farthest away</h2>
<div class="sheet">
{_figures(misplaced) or "<p>No object with key points was found.</p>"}
</div>"""
