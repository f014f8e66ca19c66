# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol (KServe v2): asked with Triton's client and by hand, compared with `Predictor`."""

import json
import re

from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.settings import Settings

import numpy as np
import pytest
import serving_tools
import tritonclient.http as triton
from serving_tools import client_of, png
from tiny_export import blocks, logits_of
from tritonclient.utils import InferenceServerException

IMAGE, LABEL = blocks(4, 8, 8)  # as large as the model's input
HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """A model that gives scores, of any batch and size."""
    return serving_tools.export(tmp_path_factory.mktemp("scores"), (-1, 3, -1, -1), output_op="none")


@pytest.fixture(scope="module")
def service(exported, scores):
    with serving_tools.Running(f"classes={exported}", "--model", f"scores={scores}") as service:
        yield service
        assert service.stop() == 0 and "Traceback" not in "".join(service.lines)


@pytest.fixture(scope="module")
def client(service):
    with triton.InferenceServerClient(service.address.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def asked(exported, predictor):
    """Without a process of its own, for requests by hand."""
    settings = Settings(model=exported, max_pixels=10_000, max_request_bytes=300_000)
    with client_of(create_app(predictor, settings)) as client:
        yield client


def _input(tensor, binary=True, name="x", datatype="FP32"):
    found = triton.InferInput(name, tensor.shape, datatype)
    found.set_data_from_numpy(tensor, binary_data=binary)
    return found


def test_health_and_metadata(client, exported, scores):
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    for name, folder in (("classes", exported), ("scores", scores)):
        predictor = Predictor(folder)
        assert client.is_model_ready(name) and client.is_model_ready(name, "1")
        found = client.get_model_metadata(name)
        assert (found["name"], found["versions"]) == (name, ["1"])
        (given,), (taken,) = found["inputs"], found["outputs"]
        assert (given["name"], taken["name"]) == (predictor.input_name, predictor.output_name)
        assert given["datatype"] == "FP32"
        if name == "classes":
            assert (given["shape"], taken["shape"], taken["datatype"]) == ([-1, 3, 32, 64], [-1, 32, 64], "INT32")
        else:
            assert (given["shape"], taken["shape"], taken["datatype"]) == ([-1, 3, -1, -1], [-1, 4, -1, -1], "FP32")
    assert not client.is_model_ready("nobody") and not client.is_model_ready("classes", "2")
    with pytest.raises(InferenceServerException, match="no model 'nobody'; this service has classes, scores"):
        client.get_model_metadata("nobody")


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_inference_equals_predictor(client, exported, binary_input, binary_output):
    predictor = Predictor(exported)
    tensor, info = predictor.prepare(IMAGE, "picture")
    asked = triton.InferRequestedOutput(predictor.output_name, binary_data=binary_output)
    given = _input(tensor[None], binary_input, predictor.input_name)
    found = client.infer("classes", [given], outputs=[asked], request_id="one")
    output = found.as_numpy(predictor.output_name)
    np.testing.assert_array_equal(output, predictor.run(tensor[None]))
    assert output.dtype == np.int32 and found.get_response()["id"] == "one"
    np.testing.assert_array_equal(predictor.postprocess(output[0], info), LABEL)


def test_a_batch_of_scores(client, scores):
    predictor = Predictor(scores)
    pictures = [blocks(2, 3, 8, seed)[0] for seed in range(3)]
    batch = np.stack([predictor.prepare(picture, "picture")[0] for picture in pictures])
    output = client.infer("scores", [_input(batch)], model_version="1").as_numpy(predictor.output_name)
    assert output.shape == (3, 4, 16, 24) and output.dtype == np.float32
    for found, picture in zip(output, pictures, strict=True):
        np.testing.assert_allclose(found, logits_of(picture), atol=1e-4)


def test_v1_of_each_model(service, exported, scores):
    assert service.client.get("/v1/models").json() == ["classes", "scores"]
    assert service.client.get("/v1/model").json()["name"] == "classes"
    assert service.client.get("/v1/model", params={"model": "scores"}).json()["input_shape"] == [-1, 3, -1, -1]
    for query in ({}, {"model": "classes"}, {"model": "scores"}):
        found = service.client.post("/v1/label", content=png(IMAGE), params=query)
        np.testing.assert_array_equal(serving_tools.label_of(found), LABEL)
    assert service.client.post("/v1/probabilities", content=png(IMAGE)).status_code == 422
    found = service.client.post("/v1/probabilities", content=png(IMAGE), params={"model": "scores"})
    assert found.status_code == 200
    found = service.client.post("/v1/label", content=bytes(20_000_000), params={"model": "nobody"})
    assert found.status_code == 404 and "this service has classes, scores" in found.json()["detail"]
    text = service.client.get("/metrics").text
    for name in ("classes", "scores"):
        assert f'segmentation_requests_total{{endpoint="/v1/label",model="{name}",status="200"}}' in text
        assert f'segmentation_queue_length{{model="{name}"}} 0.0' in text
        assert f'segmentation_backend_seconds_count{{model="{name}"}}' in text


def _body(changes: dict | None = None, **of_input) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3, 32, 64], "data": [0.5] * (3 * 32 * 64)}
    tensor = {key: value for key, value in (tensor | of_input).items() if value is not None}
    return json.dumps({"inputs": [tensor], **(changes or {})}).encode()


NAN = np.full(3 * 32 * 64, np.nan, np.float32).tobytes()
BINARY = {"data": None, "parameters": {"binary_data_size": len(NAN)}}
WRONG = {
    "no JSON": (b"{", {}, 400, "not JSON"),
    "deep JSON": (b"[" * 100_000, {}, 400, "not JSON"),
    "no object": (b"[1]", {}, 400, "no list `inputs`"),
    "no inputs": (b"{}", {}, 400, "no list `inputs`"),
    "another name": (_body(name="image"), {}, 422, "expected only x"),
    "two inputs": (json.dumps({"inputs": [{"name": "x"}] * 2}).encode(), {}, 422, "expected only x"),
    "another datatype": (_body(datatype="FP64"), {}, 422, "datatype must be FP32, got FP64"),
    "another size": (_body(shape=[1, 3, 64, 64]), {}, 422, r"shape must be \[-1, 3, 32, 64\]"),
    "three numbers of shape": (_body(shape=[3, 32, 64]), {}, 422, "shape must be"),
    "a shape of truths": (_body(shape=[True, 3, 32, 64]), {}, 422, "shape must be"),
    "an empty batch": (_body(shape=[0, 3, 32, 64]), {}, 422, "shape must be"),
    "too few numbers": (_body(data=[0.5] * 7), {}, 422, "requires 6144 numbers, got 7"),
    "lists of two lengths": (_body(data=[[1, 2], [3]]), {}, 422, "data"),
    "words": (_body(data=["1"] * 6144), {}, 422, "expected numbers"),
    "no data": (_body(data=None), {}, 422, "expected numbers"),
    "a number too large": (_body(data=[1e300] * 6144), {}, 422, "infinite"),
    "not a number": (_body(data=[float("nan")] * 6144), {}, 422, "NaN"),
    "many pixels": (_body(shape=[9, 3, 32, 64]), {}, 413, "18432 pixels"),
    "many bytes": (bytes(300_001), {}, 413, "max_request_bytes"),
    "another output": (_body({"outputs": [{"name": "z"}]}), {}, 422, "the model has only"),
    "classification": (_body({"outputs": [{"name": "?", "parameters": {"classification": 3}}]}), {}, 422, "classification"),
    "shared memory": (_body(parameters={"shared_memory_region": "a"}), {}, 422, "shared_memory"),
    "a name of lists": (_body({"id": [1]}), {}, 400, "id"),
    "compressed": (_body(), {"Content-Encoding": "gzip"}, 415, "compressed"),
    "length of words": (_body(), {HEADER: "-1"}, 400, "number of bytes"),
    "length past the end": (_body(), {HEADER: "999999"}, 400, "the body has"),
    "binary without its length": (_body(**BINARY), {}, 400, "must be given together"),
    "binary cut": (_body(**BINARY), {HEADER: str(len(_body(**BINARY)))}, 422, "the body has 0"),
    "binary NaN": (_body(**BINARY) + NAN, {HEADER: str(len(_body(**BINARY)))}, 422, "NaN"),
    "nothing": (b"", {}, 422, "0 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_requests_get_one_line(asked, predictor, kind):
    body, headers, status, text = WRONG[kind]
    body = body.replace(b'"name": "?"', f'"name": "{predictor.output_name}"'.encode())
    found = asked.post("/v2/models/model/infer", content=body, headers=headers)
    assert found.status_code == status, found.text
    assert set(found.json()) == {"error"} and "\n" not in found.json()["error"]
    assert re.search(text, found.json()["error"]), found.text
    assert asked.get("/v2/health/ready").status_code == 200


def test_errors_of_addresses_and_access(asked, exported, predictor, tmp_path):
    for path, status in (("/v2/nowhere", 404), ("/v2/models/nobody", 404), ("/v2/models/model/versions/2", 404)):
        found = asked.get(path)
        assert found.status_code == status and set(found.json()) == {"error"}, path
    assert asked.post("/v2/models/nobody/infer", content=_body()).status_code == 404
    assert asked.post("/v2/models/model/versions/7/infer", content=_body()).status_code == 404
    assert asked.get("/v2", headers={"Host": "evil.example"}).json().keys() == {"error"}
    (tmp_path / "token").write_text("correct-horse-battery\n")
    with client_of(create_app(predictor, Settings(model=exported, token_file=tmp_path / "token"))) as client:
        assert client.get("/v2/health/live").status_code == client.get("/v2/health/ready").status_code == 200
        for path in ("/v2", "/v2/models/model", "/v2/models/model/ready"):
            found = client.get(path)
            assert found.status_code == 401 and set(found.json()) == {"error"}, path
        good = {"Authorization": "Bearer correct-horse-battery"}
        assert client.post("/v2/models/model/infer", content=_body(), headers=good).status_code == 200


def test_an_output_too_large_for_json(asked, monkeypatch):
    monkeypatch.setattr("paddle_dnl.serving.pipeline.MAX_JSON_NUMBERS", 2000)
    found = asked.post("/v2/models/model/infer", content=_body())
    assert found.status_code == 413 and "request a binary output" in found.json()["error"]
    binary = asked.post("/v2/models/model/infer", content=_body({"parameters": {"binary_data_output": True}}))
    assert binary.status_code == 200 and len(binary.content) == int(binary.headers[HEADER]) + 4 * 32 * 64
