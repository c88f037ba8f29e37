"""Curves as SVG."""

from xml.etree import ElementTree

import pytest

from ctnet.eval.charts import line_chart

INF, NAN = float("inf"), float("nan")


def test_a_line_goes_through_its_points():
    svg = ElementTree.fromstring(line_chart("loss", "epoch", {"a": [(1, 4.0), (2, 2.0), (3, 0.0)]}))
    (line,) = (one.get("d") for one in svg.iter("path") if one.get("fill") == "none")
    places = [tuple(map(float, place.split())) for place in line[1:].split("L")]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    (_, top), (_, middle), (_, bottom) = places
    assert top < middle < bottom, "y grows downwards"
    assert middle == pytest.approx((top + bottom) / 2, abs=0.1)
    texts = [one.text for one in svg.iter("text")]
    assert {"loss", "epoch", "a", "4", "0"} <= set(texts)


@pytest.mark.parametrize("points", [[], [(1, None)], [(1, NAN), (2, INF)]])
def test_a_chart_without_numbers_is_no_chart(points):
    assert line_chart("loss", "epoch", {"a": points}) == ""


@pytest.mark.parametrize("values", [(0, 0), (5, 5), (-3, -3), (1e-12, 2e-12), (1e30, -1e30)])
def test_any_range_has_axes(values):
    svg = ElementTree.fromstring(line_chart("x", "y", {"<&\x1b": list(enumerate(values))}))
    numbers = [float(value) for one in svg.iter("circle") for value in (one.get("cx"), one.get("cy"))]
    assert all(0 <= number <= 600 for number in numbers)


def test_what_is_not_measured_is_left_out_of_a_line():
    svg = line_chart("AP", "epoch", {"AP": [(1, None), (2, 0.5), (3, None), (4, 0.75)]}, scale=100)
    assert svg.count("<circle") == 2
    assert ">75<" in svg or ">80<" in svg
