# SPDX-License-Identifier: Apache-2.0
"""The viewer in a real browser: the mouse is the query, and what is shown are the maps that were given."""

import re

from paddle_dnl.analysis.viewer import POSITIONS, QUERIES, ViewerMaps, fit, write_viewer

import numpy as np
import pytest
from browser import chromium

GRID, SIZE = (3, 4), (6, 8)


def _maps(**changes):
    """The map of grid point (r, c) has its peak at (r + 1, 2 c), the unary one at (5, 7)."""
    rng = np.random.default_rng(0)
    pairwise = rng.uniform(0, 0.001, (*GRID, *SIZE))
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            pairwise[row, column, row + 1, 2 * column] = 0.2 + 0.1 * column
    unary = np.full(SIZE, 0.01)
    unary[5, 7] = 0.6
    picture = rng.integers(0, 255, (60, 160, 3), dtype=np.uint8)
    return ViewerMaps(**{**dict(picture=picture, pairwise=pairwise, unary=unary), **changes})


def test_page_needs_nothing_beside_it_and_carries_no_markup_of_names(tmp_path):
    write_viewer(tmp_path / "v.html", "<b>a</script>.png", "note & more", _maps())
    text = (tmp_path / "v.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text) and "http" not in text.replace("http-equiv", "")
    assert "<b>a" not in text and "&lt;b&gt;a&lt;/script&gt;.png" in text and "note &amp; more" in text
    assert not list(tmp_path.glob("*.tmp"))
    assert text.count("</script>") == 2


def test_nothing_to_show_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pairwise or a unary"):
        write_viewer(tmp_path / "v.html", "a", "b", _maps(pairwise=None, unary=None))


def test_fit_keeps_small_maps_and_bounds_large_ones():
    assert fit(16, 32, QUERIES) == (16, 32)
    for height, width in ((128, 256), (97, 97), (1, 5000), (17, 32)):
        for limit in (QUERIES, POSITIONS):
            rows, columns = fit(height, width, limit)
            assert rows * columns <= limit and rows <= height and columns <= width
            assert height == 1 or abs(rows / columns / (height / width) - 1) < 0.5


def _state(browser) -> dict:
    data = browser.run("const s = document.getElementById('status'); return {...s.dataset, text: s.textContent};")
    return {key: value if key == "text" else float(value) for key, value in data.items()}


def _point(browser, row: float, column: float) -> None:
    box = browser.run(
        "const b = document.getElementById('view').getBoundingClientRect(); return [b.x, b.y, b.width, b.height];"
    )
    browser.move(box[0] + (column + 0.5) / GRID[1] * box[2], box[1] + (row + 0.5) / GRID[0] * box[3])


def _choose(browser, term: str) -> None:
    browser.run(f"document.querySelector('input[value={term}]').click();")


def _brightest(browser) -> list[int]:
    """Column and row of the map where the canvas is brightest, the marker left out by its own colours."""
    return browser.run(
        """const smooth = document.getElementById('smooth');
        smooth.checked = false; smooth.dispatchEvent(new Event('change'));
        const v = document.getElementById('view'), d = v.getContext('2d').getImageData(0, 0, v.width, v.height).data;
        const sums = new Array(48).fill(0);
        for (let y = 0; y < v.height; y++) for (let x = 0; x < v.width; x++) {
          const i = 4 * (y * v.width + x), [r, g, b] = [d[i], d[i + 1], d[i + 2]];
          if (r > b + 30) sums[Math.floor(y / v.height * 6) * 8 + Math.floor(x / v.width * 8)] += r + g;
        }
        const best = sums.indexOf(Math.max(...sums)); return [best % 8, Math.floor(best / 8)];"""
    )


def test_mouse_and_keys_choose_the_query_and_terms_are_as_given(tmp_path):
    maps = _maps()
    write_viewer(tmp_path / "v.html", "street.png", "", maps)
    with chromium() as browser:
        browser.call("POST", "/url", url=(tmp_path / "v.html").as_uri())
        for row, column in ((0, 0), (2, 3), (1, 2)):
            _point(browser, row, column)
            state = _state(browser)
            assert (state["row"], state["column"]) == (row, column)
            assert state["best"] == (row + 1) * 8 + 2 * column
            assert abs(state["top"] - maps.pairwise[row, column].max()) < 1e-5
            assert _brightest(browser) == [2 * column, row + 1]
        _choose(browser, "unary")
        assert _state(browser)["best"] == 5 * 8 + 7 and abs(_state(browser)["top"] - 0.6) < 1e-6
        _choose(browser, "both")
        both = maps.pairwise[1, 2] + maps.unary
        assert abs(_state(browser)["top"] - both.max()) < 0.003 and _state(browser)["best"] == both.argmax()
        _choose(browser, "pairwise")
        browser.run("document.getElementById('view').focus();")
        browser.press("\ue014")  # right
        browser.press("\ue013")  # up
        assert (_state(browser)["row"], _state(browser)["column"]) == (0, 3)
        assert browser.errors() == []


def test_the_predicted_class_of_the_query_is_named(tmp_path):
    names = np.array(["road", "<b>sky</b>"], object)
    predicted = names[(np.arange(160) >= 80)[None].repeat(60, 0).astype(int)]
    write_viewer(tmp_path / "v.html", "a", "", _maps(predicted=predicted))
    write_viewer(tmp_path / "plain.html", "a", "", _maps())
    with chromium() as browser:
        browser.call("POST", "/url", url=(tmp_path / "v.html").as_uri())
        for column, name in ((1, "road"), (2, "<b>sky</b>")):
            _point(browser, 0, column)
            assert f", predicted {name} · pairwise" in _state(browser)["text"]
        browser.call("POST", "/url", url=(tmp_path / "plain.html").as_uri())
        assert "predicted" not in _state(browser)["text"] and browser.errors() == []


def test_product_and_single_terms(tmp_path):
    maps = _maps()
    product = maps.pairwise * maps.unary
    product /= product.sum((2, 3), keepdims=True)
    maps.both = product
    write_viewer(tmp_path / "product.html", "a", "", maps)
    write_viewer(tmp_path / "unary.html", "a", "", _maps(pairwise=None))
    with chromium() as browser:
        browser.call("POST", "/url", url=(tmp_path / "product.html").as_uri())
        _point(browser, 1, 1)
        _choose(browser, "both")
        assert abs(_state(browser)["top"] - product[1, 1].max()) < 1e-5
        assert _state(browser)["best"] == product[1, 1].argmax()
        browser.call("POST", "/url", url=(tmp_path / "unary.html").as_uri())
        assert browser.run("return document.querySelectorAll('input[name=term]').length;") == 1
        assert _state(browser)["best"] == 5 * 8 + 7
        assert browser.errors() == []


def test_a_tall_picture_fits_the_window(tmp_path):
    write_viewer(tmp_path / "v.html", "a", "b", _maps(picture=np.zeros((480, 640, 3), np.uint8)))
    with chromium() as browser:
        browser.call("POST", "/url", url=(tmp_path / "v.html").as_uri())
        box = browser.run(
            "const b = document.getElementById('view').getBoundingClientRect();"
            "return [b.width / b.height, document.documentElement.scrollHeight, innerHeight];"
        )
    assert abs(box[0] - 640 / 480) < 0.02 and box[1] <= box[2], box
