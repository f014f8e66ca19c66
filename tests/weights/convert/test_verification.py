# SPDX-License-Identifier: Apache-2.0
"""`--verify` reads the .npz of a stranger: one line for whatever is in it, and no memory for what its header claims."""

import io
import json
import os
import resource
import zipfile

from paddle_dnl.errors import CheckpointError, DataError
from paddle_dnl.weights.convert.verification import compare_logits, read_logits

import numpy as np
import paddle
import pytest


def _npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _claims(shape, dtype="<f4", content=b"") -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


IMAGE, LOGITS = np.ones((1, 3, 4, 4), np.float32), np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
BOMB = _claims((1, 3, 1 << 14, 1 << 13), content=bytes(1 << 20))
ARRAYS = {
    "nothing": {},
    "other names": {"a": _npy(IMAGE)},
    "no logits": {"input": _npy(IMAGE)},
    "text for an array": {"input": b"hello", "logits": _npy(LOGITS)},
    "pickled objects": {"input": _npy(np.array([{}, 1], object)), "logits": _npy(LOGITS)},
    "whole numbers": {"input": _npy(IMAGE.astype(int)), "logits": _npy(LOGITS)},
    "complex numbers": {"input": _npy(IMAGE), "logits": _npy(LOGITS.astype(complex))},
    "text": {"input": _npy(np.array(["a"])), "logits": _npy(LOGITS)},
    "three dimensions": {"input": _npy(IMAGE[0]), "logits": _npy(LOGITS)},
    "no numbers": {"input": _npy(IMAGE[:0]), "logits": _npy(LOGITS)},
    "NaN": {"input": _npy(IMAGE), "logits": _npy(LOGITS * np.nan)},
    "all zero": {"input": _npy(IMAGE), "logits": _npy(LOGITS * 0)},
    "claims more than it has": {"input": _claims((1, 3, 4, 4), content=b"1234"), "logits": _npy(LOGITS)},
    "claims terabytes": {"input": _claims((1, 3, 1 << 20, 1 << 20)), "logits": _npy(LOGITS)},
    "claims a gigabyte and ends": {"input": BOMB, "logits": _npy(LOGITS)},
    "negative shape": {"input": _claims((1, -3, -4, 4)), "logits": _npy(LOGITS)},
    "shape is text": {"input": _claims("'abc'"), "logits": _npy(LOGITS)},
    "code in the header": {"input": _claims("__import__('os').system('touch hacked')"), "logits": _npy(LOGITS)},
    "unknown version": {"input": b"\x93NUMPY\x09\x00" + bytes(80), "logits": _npy(LOGITS)},
    "golden without its specification": {"logits_sub4": _npy(LOGITS)},
}


def _archive(path, arrays, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return path


def _one_line(path, says="--verify"):
    with pytest.raises(DataError, match=says) as raised:
        read_logits(path)
    text = str(raised.value)
    assert text.startswith(f"--verify {path}") and "\n" not in text and len(text) < 700, text


@pytest.mark.parametrize("name", ARRAYS)
def test_odd_arrays_are_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _one_line(_archive(tmp_path / "out.npz", ARRAYS[name]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"not a zip", _npy(IMAGE)], ids=["empty", "cut", "text", "npy"]
)
def test_what_is_no_npz(tmp_path, content):
    (tmp_path / "out.npz").write_bytes(content)
    _one_line(tmp_path / "out.npz")


def test_what_is_no_file(tmp_path):
    _one_line(tmp_path / "absent.npz", "No such file")
    (tmp_path / "folder.npz").mkdir()
    _one_line(tmp_path / "folder.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    _one_line(tmp_path / "pipe.npz")


def test_flipped_bytes_and_cuts(tmp_path):
    whole = _archive(tmp_path / "whole.npz", {"input": _npy(IMAGE), "logits": _npy(LOGITS)}).read_bytes()
    path = tmp_path / "out.npz"
    for at in range(0, len(whole), 7):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            path.write_bytes(content)
            try:
                read_logits(path)  # names of entries and dates may change without harm
            except DataError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("spec", ["", "[]", "{}", '{"meta": 3}', '{"meta": {"name": "a", "input_shape": [1, 3, 60000, 60000]}}',
                                  '{"meta": {"name": "a", "input_shape": "abcd"}}', "[" * 100_000])  # fmt: skip
def test_odd_specifications_of_golden_cases(tmp_path, spec):
    _archive(tmp_path / "out.npz", {"logits_sub4": _npy(LOGITS)})
    (tmp_path / "spec.json").write_text(spec)
    _one_line(tmp_path / "out.npz")


def test_whole_ones_are_read(tmp_path):
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        for order in (np.ascontiguousarray, np.asfortranarray):
            arrays = {"input": _npy(order(IMAGE)), "logits": _npy(order(LOGITS.astype(np.float64)))}
            image, logits, step = read_logits(_archive(tmp_path / "out.npz", arrays, method))
            np.testing.assert_array_equal(image, IMAGE)
            np.testing.assert_array_equal(logits, LOGITS)
            assert step == 1 and logits.dtype == np.float32
    (tmp_path / "spec.json").write_text(json.dumps({"meta": {"name": "a", "input_shape": [1, 3, 8, 8]}}))
    _archive(tmp_path / "out.npz", {"logits_sub4": _npy(LOGITS)})
    assert read_logits(tmp_path / "out.npz")[0].shape == (1, 3, 8, 8)


class Net(paddle.nn.Layer):
    """Two classes per pixel from three channels."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 2, 1)

    def forward(self, x):
        return [self.conv(x)]


def test_an_input_that_the_model_cannot_take_is_one_line(tmp_path):
    path = _archive(tmp_path / "out.npz", {"input": _npy(np.ones((1, 5, 4, 4), np.float32)), "logits": _npy(LOGITS)})
    with pytest.raises(DataError, match="the model cannot take its input") as raised:
        compare_logits(Net(), path)
    assert "\n" not in str(raised.value)
    path = _archive(tmp_path / "out.npz", {"input": _npy(IMAGE), "logits": _npy(np.ones((1, 2, 8, 8), np.float32))})
    with pytest.raises(CheckpointError, match="logits are"):
        compare_logits(Net(), path)
