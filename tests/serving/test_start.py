# SPDX-License-Identifier: Apache-2.0
"""Settings that the service refuses at its start, before it loads a model."""

from paddle_dnl.errors import UsageError
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.main import serve
from paddle_dnl.serving.settings import Settings

import pytest


@pytest.mark.parametrize("content", [None, "", "short"])
def test_a_token_that_cannot_be_used(predictor, tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    settings = Settings(model="nowhere", token_file=path)
    for start in (lambda: serve(settings), lambda: create_app(predictor, settings)):
        with pytest.raises(UsageError, match="--token_file .*token: "):
            start()


@pytest.mark.parametrize(
    "key, text",
    [
        (None, "must be given together"),
        ("none.pem", "--tls_key .*none.pem: no such file"),
        ("a.pem", "a.pem: cannot be used .*PEM files"),
    ],
)
def test_a_certificate_that_cannot_be_used(tmp_path, key, text):
    (tmp_path / "a.pem").write_text("garbage")
    with pytest.raises(UsageError, match=text):
        serve(Settings(model="nowhere", tls_certificate=tmp_path / "a.pem", tls_key=key and tmp_path / key))
