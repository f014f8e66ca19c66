# SPDX-License-Identifier: Apache-2.0
"""The HTTP service: answers against NumPy and Predictor, every kind of bad picture, limits, queue, settings."""

import io
import re
import struct
import zlib

from paddle_dnl.data.images.image_format import decode_image
from paddle_dnl.data.images.untrusted import TooLarge
from paddle_dnl.data.overlay import overlay
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ConfigError, UsageError
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.main import load
from paddle_dnl.serving.results import ClassNames, masks
from paddle_dnl.serving.settings import Settings, read_settings

import cv2
import numpy as np
import pytest
import serving_tools
from PIL import Image
from serving_tools import client_of, label_of, png
from tiny_export import CLASSES, COLORS, NORMALIZE, blocks, own_transform

POSTS = ("/v1/label", "/v1/overlay", "/v1/shares", "/v1/rle")


@pytest.fixture(scope="module")
def client(exported, predictor):
    with client_of(create_app(predictor, Settings(model=exported, max_request_bytes=300_000))) as client:
        yield client


def _pillow(image_bgr, mode="RGB", kind="PNG", **more) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_bgr[..., ::-1]).convert(mode).save(buffer, kind, **more)
    return buffer.getvalue()


def _unfold(counts, height, width) -> np.ndarray:
    """COCO's run lengths, as its description says: columns, zeros first."""
    values = np.repeat(np.arange(len(counts)) % 2, counts)
    return values.reshape(width, height).T


def test_label_and_overlay(client):
    image, label = blocks(4, 8, 16)
    found = client.post("/v1/label", content=png(image))
    np.testing.assert_array_equal(label_of(found), label)
    colors = np.array(Image.open(io.BytesIO(found.content)).convert("RGB"))
    np.testing.assert_array_equal(colors, np.asarray(CLASSES.colors, np.uint8)[label])
    assert re.search(r"read;dur=[\d.]+, run;dur=[\d.]+", found.headers["server-timing"])
    for opacity in (None, 0, 0.25, 1):
        query = {} if opacity is None else {"opacity": opacity}
        mixed = client.post("/v1/overlay", content=png(image), params=query)
        wanted = overlay(image, label, CLASSES.colors, 0.6 if opacity is None else 1 - opacity)
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(mixed.content, np.uint8), 1), wanted)


def test_shares_and_masks(client):
    image, label = blocks(4, 8, 16, seed=3)
    found = client.post("/v1/shares", files={"image": ("a.png", png(image))}).json()
    assert (found["width"], found["height"]) == (128, 64)
    assert [one["pixels"] for one in found["classes"]] == sorted(np.bincount(label.ravel()), reverse=True)
    for one in found["classes"]:
        assert one["pixels"] == (label == one["id"]).sum() and one["share"] == one["pixels"] / label.size
        assert one["name"] == CLASSES.names[one["id"]] and tuple(one["color"]) == CLASSES.colors[one["id"]]
    answer = client.post("/v1/rle", content=png(image)).json()
    for one in answer["classes"]:
        assert one["rle"]["size"] == [64, 128]
        np.testing.assert_array_equal(_unfold(one["rle"]["counts"], 64, 128), label == one["id"])


def test_run_lengths_of_any_label_map():
    rng = np.random.default_rng(0)
    names = ClassNames(None)
    for shape in ((1, 1), (1, 7), (7, 1), (13, 9)):
        for classes in (1, 2, 200):
            label = rng.integers(0, classes, shape).astype(np.uint8) + (255 - 199 if classes == 200 else 0)
            total = 0
            for one in masks(label, names)["classes"]:
                np.testing.assert_array_equal(_unfold(one["rle"]["counts"], *shape), label == one["id"])
                assert sum(one["rle"]["counts"]) == label.size and one["name"] == f"class_{one['id']}"
                total += one["pixels"]
            assert total == label.size


@pytest.mark.parametrize("kind", ["16-bit", "alpha", "grey", "palette", "cmyk", "turned", "webp", "tiff"])
def test_pictures_of_every_kind_count_as_infer_reads_them(client, predictor, tmp_path, kind):
    image, label = blocks(4, 8, 8)
    if kind == "16-bit":
        content = png(image.astype(np.uint16) * 257)
    elif kind == "alpha":
        content = png(np.dstack([image, np.zeros(image.shape[:2], np.uint8)]))
    elif kind == "grey":
        content = png(image[..., 1])
        label = None
    elif kind == "palette":
        content = _pillow(image, "P")
        label = None
    elif kind == "cmyk":
        content = _pillow(image, "CMYK", "JPEG", quality=95)
        label = None
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        content = _pillow(np.rot90(image).copy(), kind="JPEG", quality=100, subsampling=0, exif=exif)
    else:
        content = png(image, f".{kind}", *((cv2.IMWRITE_WEBP_QUALITY, 101) if kind == "webp" else ()))
    (tmp_path / "picture").write_bytes(content)
    found = label_of(client.post("/v1/label", content=content))
    np.testing.assert_array_equal(found, predictor.predict([tmp_path / "picture"])[0])
    assert found.shape == image.shape[:2]
    assert label is None or (found == label).mean() > 0.98


def _giant(width, height) -> bytes:
    """A PNG whose head announces any size; there is next to nothing behind it."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


_IMAGE = blocks(8, 8, 8)[0]
BAD = {
    "nothing": (b"", 422, "0 bytes"),
    "text": (b"no picture", 415, "not a picture"),
    "head only": (png(_IMAGE)[:20], 415, "not a picture"),
    "gif": (_pillow(_IMAGE, "P", "GIF"), 415, "not a picture"),
    "pbm": (b"P4\n8 8\n" + bytes(8), 415, "not a picture"),
    "hdr": (png(_IMAGE.astype(np.float32), ".hdr"), 415, "not a picture"),
    "cut off png": (png(_IMAGE)[:-40], 422, "damaged"),
    "cut off jpeg": (png(_IMAGE, ".jpg")[:-60], 422, "damaged JPEG"),
    "100 megapixels": (_giant(10_000, 10_000), 413, "10000x10000 = 100000000 pixels, allowed are 25000000"),
    "bomb": (_giant(60_000, 60_000), 413, "60000x60000 = 3600000000 pixels, allowed are 25000000"),
    "many bytes": (bytes(300_001), 413, "larger than 300000 bytes"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("form", [False, True], ids=["body", "form"])
def test_bad_pictures_have_a_status_and_a_reason(client, what, form):
    content, status, text = BAD[what]
    if form and what == "many bytes":
        content += bytes(20_000)
        text = "larger than 310000 bytes"
    for path in POSTS:
        given = {"files": {"image": ("a", content)}} if form else {"content": content}
        found = client.post(path, **given)
        assert (found.status_code, list(found.json())) == (status, ["detail"]), found.text
        assert text in found.json()["detail"] and "\n" not in found.json()["detail"]
    assert client.get("/healthz").json() == {"status": "ok"}


def test_bytes_are_counted_where_no_length_is_announced(client):
    found = client.post("/v1/label", content=iter([bytes(100_000)] * 5))
    assert found.status_code == 413


def test_giants_are_never_decoded(monkeypatch):
    def decode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(TooLarge):
        decode_image(np.frombuffer(_giant(10_000, 10_000), np.uint8), "picture", max_pixels=25_000_000)


def test_wrong_requests(client):
    good = png(blocks(4, 8, 8)[0])
    for query in ("opacity=2", "opacity=-0.1", "opacity=nan", "opacity=x"):
        found = client.post(f"/v1/overlay?{query}", content=good)
        assert found.status_code == 422 and "opacity" in found.json()["detail"]
    found = client.post("/v1/label", files={"picture": good})
    assert found.status_code == 422 and "'image'" in found.json()["detail"]
    assert client.post("/v1/label", data={"image": "text"}).status_code in (415, 422)
    broken = client.post("/v1/label", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert broken.status_code == 400 and "boundary" in broken.json()["detail"]
    assert client.get("/v1/label").status_code == 405 and client.get("/nowhere").status_code == 404


def test_sizes_that_a_fixed_model_does_not_take(exported):
    predictor = Predictor(exported, wrong_size="refuse")
    with client_of(create_app(predictor, Settings(model=exported, wrong_size="refuse"))) as client:
        assert label_of(client.post("/v1/label", content=png(blocks(4, 8, 8)[0]))).shape == (32, 64)
        found = client.post("/v1/label", content=png(blocks(4, 8, 16)[0]))
        assert found.status_code == 422 and "is 128x64 after Deploy.transforms" in found.json()["detail"]


def test_what_is_known_about_the_service(client):
    found = client.get("/v1/model").json()
    assert found["input_shape"] == [1, 3, 32, 64] and found["max_batch"] == 1 and found["backend"] == "paddle"
    assert [c["name"] for c in found["classes"]] == list(CLASSES.names)
    assert found["max_request_bytes"] == 300_000
    for path in (*POSTS, "/v1/model", "/healthz", "/metrics"):
        assert path in client.get("/openapi.json").json()["paths"]
    client.post("/v1/shares", content=png(blocks(4, 8, 8)[0]))  # the first one alone makes the counter appear
    text = client.get("/metrics").text
    before = int(float(re.search(r'requests_total\{endpoint="/v1/shares",model="model",status="200"\} (\S+)', text)[1]))
    client.post("/v1/shares", content=png(blocks(4, 8, 8)[0]))
    for _ in range(2):
        client.get("/made/up")
    text = client.get("/metrics").text
    assert f'segmentation_requests_total{{endpoint="/v1/shares",model="model",status="200"}} {before + 1}.0' in text
    assert "made/up" not in text and 'endpoint="other",model="",status="404"' in text
    assert re.search(r'^segmentation_queue_length\{model="model"\} 0\.0$', text, re.M)
    assert re.search(r"^process_resident_memory_bytes \d", text, re.M)
    assert re.search(r'^segmentation_backend_seconds_count\{model="model"\} [1-9]', text, re.M)


def test_the_page_needs_nothing_from_elsewhere(client):
    found = client.get("/")
    policy = found.headers["content-security-policy"]
    assert found.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    # A digest covers the element's own text alone.
    assert not re.findall(r"<[^>]+\s(?:style|on\w+)=", found.text.split("<script>")[0])
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]+/[^'\" ]*", found.text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a namespace, not a resource"
    given = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"(.{5})", found.text)
    assert set(given) == {"data:"}
    assert client.get("/docs").status_code == 404


def test_settings_from_flags_and_environment(monkeypatch):
    monkeypatch.setenv("SERVING_MODEL", "a")
    monkeypatch.setenv("SERVING_PORT", "9000")
    assert (read_settings([]).model, read_settings([]).port, read_settings(["--port", "1"]).port) == (["a"], 9000, 1)
    for flags, text in (
        (["--queue_size", "0"], r"--queue_size \(SERVING_QUEUE_SIZE\).*'0'"),
        (["--backend", "tensorrt"], "--backend"),
        (["--request_seconds", "nan"], "--request_seconds"),
    ):
        with pytest.raises(UsageError, match=text):
            read_settings(flags)
    former = read_settings(["--engine", "auto"]), read_settings(["--engine=auto"])
    monkeypatch.setenv("SERVING_ENGINE", "openvino")
    former += read_settings([]), read_settings(["--backend", "onnxruntime"]), read_settings(["--engine", "auto"])
    monkeypatch.setenv("SERVING_BACKEND", "paddle")
    found = [one.backend for one in (*former, read_settings([]))]
    assert found == ["auto", "auto", "openvino", "onnxruntime", "auto", "paddle"]
    monkeypatch.delenv("SERVING_MODEL")
    with pytest.raises(UsageError, match=r"--model \(SERVING_MODEL\): Field required"):
        read_settings([])
    with pytest.raises(SystemExit):
        read_settings(["--nonsense", "1"])


def test_settings_are_documented():
    text = (serving_tools.ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() else str(field.default).replace("None", "")
        assert f"| `{name}` | {default} | {field.description} |" in text, name


def test_wrong_models_are_told_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        load(Settings(model=tmp_path / "nowhere"))


def test_colours_of_the_tiny_model():
    # The pictures of these tests have all classes in them, else half of the above says little.
    assert len(np.unique(blocks(4, 8, 16)[1])) == len(COLORS)


def test_large_pictures_are_worked_through_in_tiles(client):
    image, label = blocks(30, 40, 3)
    np.testing.assert_array_equal(label_of(client.post("/v1/label", content=png(image))), label)


def test_a_users_transform_comes_by_custom_imports(tmp_path):
    with own_transform(tmp_path) as module:
        serving_tools.export(tmp_path / "out", transforms=[{"type": "SwapRedAndBlue"}, dict(NORMALIZE)])
    with pytest.raises(ConfigError, match="SwapRedAndBlue of the module my_swap"):
        load(Settings(model=tmp_path / "out"))
    image, label = blocks(2, 4, 16)
    with serving_tools.Running(tmp_path / "out", "--custom_imports", str(module)) as service:
        found = service.client.post("/v1/label", content=png(image[..., ::-1]))
        np.testing.assert_array_equal(label_of(found), label)
