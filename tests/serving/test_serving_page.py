# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: a dropped picture shows its classes, the legend, and an opacity that does what it says."""

import base64

import numpy as np
import pytest
import serving_tools
from browser import chromium
from serving_tools import png
from tiny_export import CLASSES, NORMALIZE, blocks, own_transform

# A drop as the browser makes it: a file in a DataTransfer.
DROP = """
const bytes = Uint8Array.from(atob("%s"), letter => letter.charCodeAt(0)), data = new DataTransfer();
data.items.add(new File([bytes], "%s", {type: "%s"}));
document.querySelector("#stage").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
"""
PIXELS = """
const canvas = document.getElementById("%s");
return [canvas.height, canvas.width, Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)];
"""


# Ends with the state in which the page is when it has finished.
READY = """
const done = arguments[arguments.length - 1];
const look = () => ["done", "error"].includes(document.body.dataset.state) || !document.getElementById("wrong").hidden
  ? done(document.body.dataset.state) : setTimeout(look, 20);
look();
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = serving_tools.export(tmp_path_factory.mktemp("export"))
    with serving_tools.Running(folder, "--max_request_bytes", 50_000) as service, chromium() as browser:
        browser.call("POST", "/url", url=service.address + "/")
        browser.call("POST", "/timeouts", script=30_000)
        yield browser


def _drop(page, content: bytes, kind="image/png", name="street.png") -> str:
    """Drops a file; returns the state in which the page ends."""
    page.run("document.body.dataset.state = 'test';")
    page.run(DROP % (base64.b64encode(content).decode(), name, kind))
    return page.call("POST", "/execute/async", script=READY, args=[])


def _pixels(page, canvas: str) -> np.ndarray:
    height, width, values = page.run(PIXELS % canvas)
    return np.array(values, np.uint8).reshape(height, width, 4)


def _text(page, selector: str) -> str:
    return page.run(f"return document.querySelector('{selector}').innerText;")


def test_dropped_picture(page):
    image, label = blocks(4, 8, 16, seed=3)
    assert "4 classes · 64 × 32 input" in _text(page, "#model") and "Drop a picture" in _text(page, "#invite")
    assert _drop(page, png(image)) == "done"
    np.testing.assert_array_equal(_pixels(page, "picture")[..., :3], image[..., ::-1])
    mask = _pixels(page, "mask")
    np.testing.assert_array_equal(mask[..., :3], np.asarray(CLASSES.colors, np.uint8)[label])
    assert (mask[..., 3] == 255).all()
    counts = np.bincount(label.ravel(), minlength=4)
    order = sorted(range(4), key=lambda number: (-counts[number], number))
    rows = page.run("return [...document.querySelectorAll('#legend button')].map(row => row.innerText.split('\\n'));")
    assert [name for name, _ in rows] == [CLASSES.names[n] for n in order]
    found = [float(share.removesuffix(" %")) for _, share in rows]
    np.testing.assert_allclose(found, [100 * counts[n] / label.size for n in order], atol=0.051)
    assert "128 × 64 pixels" in _text(page, "#times") and "run" in _text(page, "#times")


def test_opacity_and_classes(page):
    image, label = blocks(4, 8, 16, seed=3)
    _drop(page, png(image))
    for value in (0, 25, 100):
        page.run(
            f"const o = document.getElementById('opacity'); o.value = {value}; o.dispatchEvent(new Event('input'));"
        )
        assert float(page.run("return getComputedStyle(document.getElementById('mask')).opacity;")) == value / 100
        assert _text(page, "#percent") == f"{value} %"
    first = np.bincount(label.ravel()).argmax()
    page.run("document.querySelector('#legend button').click();")
    np.testing.assert_array_equal(_pixels(page, "mask")[..., 3] == 0, label == first)
    page.run("document.querySelector('#legend button').click();")
    assert (_pixels(page, "mask")[..., 3] == 255).all()
    box = page.run(
        "const b = document.getElementById('mask').getBoundingClientRect(); return [b.x, b.y, b.width, b.height];"
    )
    for row, column in ((0, 0), (2, 5), (3, 7)):
        page.move(box[0] + (column + 0.5) / 8 * box[2], box[1] + (row + 0.5) / 4 * box[3])
        assert _text(page, "#tip") == CLASSES.names[label[16 * row + 8, 16 * column + 8]]


def test_a_tiff_which_the_browser_cannot_show(page):
    image, label = blocks(2, 4, 16, seed=1)
    assert _drop(page, png(image, ".tiff"), "image/tiff", "a.tiff") == "done"
    np.testing.assert_array_equal(_pixels(page, "picture")[..., :3], image[..., ::-1])
    np.testing.assert_array_equal(_pixels(page, "mask")[..., :3], np.asarray(CLASSES.colors, np.uint8)[label])


def test_bad_files_say_what_is_wrong_and_keep_what_was_shown(page):
    image, _ = blocks(4, 8, 16)
    _drop(page, png(image))
    assert _drop(page, b"no picture", "text/plain", "a.txt") == "error"
    assert "not a picture of a known format" in _text(page, "#wrong") and "415" in _text(page, "#wrong")
    np.testing.assert_array_equal(_pixels(page, "picture")[..., :3], image[..., ::-1])
    _drop(page, bytes(60_000))
    assert "0.1 MB" in _text(page, "#wrong")
    assert _drop(page, png(image)) == "done" and page.run("return document.getElementById('wrong').hidden;")


def test_nothing_was_asked_from_elsewhere(page):
    asked = page.run("return performance.getEntriesByType('resource').map(entry => new URL(entry.name).host);")
    here = page.run("return location.host;")
    assert asked and set(asked) <= {here, ""}
    # The browser itself notes the refusals that the tests above provoke, and nothing else.
    assert all("415" in message for message in page.errors())


def test_a_model_is_chosen_where_there_are_several(tmp_path):
    """The second model swaps red and blue: its legend and mask differ."""
    with own_transform(tmp_path) as module:
        folder = serving_tools.export(tmp_path / "b", transforms=[{"type": "SwapRedAndBlue"}, dict(NORMALIZE)])
    image, label = blocks(4, 8, 16, seed=3)
    flags = ("--model", f"b={folder}", "--custom_imports", str(module))
    with serving_tools.Running(f"a={serving_tools.export(tmp_path / 'a')}", *flags) as service, chromium() as browser:
        browser.call("POST", "/url", url=service.address + "/")
        browser.call("POST", "/timeouts", script=30_000)
        assert _drop(browser, png(image)) == "done"
        assert browser.run("return [...document.getElementById('models').options].map(one => one.value)") == ["a", "b"]
        change = "const box = document.getElementById('models'); box.value = 'b'; box.onchange();"
        browser.run("document.body.dataset.state = 'test';" + change)
        browser.call("POST", "/execute/async", script=READY, args=[])
        found = _pixels(browser, "mask")[..., :3]
    colors = np.asarray(CLASSES.colors, np.uint8)
    swapped = np.where(label == 0, 2, np.where(label == 2, 0, label))
    same = (label != 3) & (label != 1)  # yellow and green change to what the model makes of them
    np.testing.assert_array_equal(found[same], colors[swapped][same])
