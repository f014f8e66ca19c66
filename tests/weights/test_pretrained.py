# SPDX-License-Identifier: Apache-2.0
"""Start weights by URL, against a server of this test: what arrives whole is kept, everything else is one clear line."""

import hashlib
import io
import tarfile
import threading
import time
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from paddle_dnl.distributed import collectives
from paddle_dnl.errors import DownloadError
from paddle_dnl.weights import downloads

import pytest

WEIGHTS = bytes(range(256)) * 1000


def _tar(members: dict[str, bytes], mode: str = "w:gz", link: str | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as bundle:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("model.pdparams")
            info.type, info.linkname = tarfile.SYMTYPE, link
            bundle.addfile(info)
    return stream.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return stream.getvalue()


BODIES = {
    "/plain/net.pdparams": WEIGHTS,
    "/net.safetensors": WEIGHTS,
    "/dygraph/resnet_ssld.tar.gz": _tar({"resnet_ssld/._net.pdparams": b"mac", "resnet_ssld/net.pdparams": WEIGHTS}),
    "/other/resnet_ssld.tar.gz": _tar({"model.pdparams": WEIGHTS[::-1]}),
    "/net.tar": _tar({"a/readme": b"x", "a/model.pdparams": WEIGHTS, "a/other.pdparams": b"no"}, "w"),
    "/net.zip": _zip({"net/weights.pdparams": WEIGHTS}),
    "/escape.tar.gz": _tar({"../../../escaped/model.pdparams": WEIGHTS, "/absolute/readme": b"x"}),
    "/escape.zip": _zip({"../../escaped/model.pdparams": WEIGHTS}),
    "/link.tar.gz": _tar({}, link="/etc/passwd"),
    "/several.tar.gz": _tar({"a.pdparams": b"1", "b.pdparams": b"2"}),
    "/none.zip": _zip({"readme": b"x"}),
    "/broken.tar.gz": _tar({"model.pdparams": WEIGHTS})[:300],
    "/page.tar.gz": b"<html>please log in</html>",
    "/empty.pdparams": b"",
    "/large.tar.gz": _tar({"model.pdparams": b"\0" * 300_000}),
    "/large.zip": _zip({"model.pdparams": b"\0" * 300_000}),
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        path = self.path.split("?")[0]
        if path in BODIES:
            self._send(BODIES[path], len(BODIES[path]))
        elif path.startswith("/short"):
            self._send(WEIGHTS[:1000], len(WEIGHTS))
        elif path.startswith("/silent"):
            self._send(WEIGHTS[:1000], len(WEIGHTS), flush=True)
            self.server.stop.wait(20)
        elif path.startswith("/trickle"):
            self._send(b"", len(WEIGHTS), flush=True)
            while not self.server.stop.wait(0.1):
                self.wfile.write(b"x")
        elif path.startswith("/loop"):
            self._redirect(self.path)
        elif path.startswith("/moved"):
            self._redirect("/plain/net.pdparams")
        elif path.startswith("/to_file"):
            self._redirect("file:///etc/passwd")
        elif path.startswith("/not_http"):
            self.wfile.write(b"220 some other service\r\n")
        elif path.startswith("/bad_chunk"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nabc")
        elif path.startswith("/busy"):
            self.send_error(503)
        else:
            self.send_error(404)

    def _send(self, body, length, flush=False):
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        if flush:
            self.wfile.flush()

    def _redirect(self, to):
        self.send_response(302)
        self.send_header("Location", to)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    service = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    service.daemon_threads, service.asked, service.stop = True, [], threading.Event()
    service.url = f"http://127.0.0.1:{service.server_address[1]}"
    threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield service
    service.stop.set()
    service.shutdown()
    service.server_close()


def _files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/plain/net.pdparams", "net/model.pdparams"),
        ("/plain/net.pdparams?version=2", "net/model.pdparams"),
        ("/net.safetensors", "net/model.safetensors"),
        ("/dygraph/resnet_ssld.tar.gz", "resnet_ssld/model.pdparams"),
        ("/net.tar", "net/model.pdparams"),
        ("/net.zip", "net/model.pdparams"),
        ("/moved/net.pdparams", "net/model.pdparams"),
    ],
)
def test_weights_arrive_once_and_are_kept(server, tmp_path, path, kept):
    first = downloads.fetch(server.url + path, cache_dir=tmp_path)
    assert first == tmp_path / kept and first.read_bytes() == WEIGHTS
    asked = len(server.asked)
    assert downloads.fetch(server.url + path, cache_dir=tmp_path) == first
    assert len(server.asked) == asked
    assert _files(tmp_path) == sorted([kept, str(first.with_suffix(".source").relative_to(tmp_path))])


def test_archives_cannot_write_outside_the_cache(server, tmp_path):
    cache = tmp_path / "a" / "b" / "cache"
    for path in ("/escape.tar.gz", "/escape.zip"):
        downloads.fetch(server.url + path, cache_dir=cache).unlink()
    assert all(name.startswith("a/b/cache/escape/model.") for name in _files(tmp_path))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/nothing.pdparams", "HTTP status 404"),
        ("/busy.pdparams", "HTTP status 503"),
        ("/short.pdparams", f"the connection ended after 1000 of {len(WEIGHTS)} bytes"),
        ("/empty.pdparams", "the answer is empty"),
        ("/loop.pdparams", "HTTP status 302"),
        ("/to_file.pdparams", "file:///etc/passwd"),
        ("/not_http.pdparams", "220 some other service"),
        ("/bad_chunk.pdparams", "IncompleteRead"),
        ("/link.tar.gz", "holds 0 weights files"),
        ("/several.tar.gz", "holds 2 weights files"),
        ("/none.zip", "holds 0 weights files"),
        ("/broken.tar.gz", "not a readable archive"),
        ("/page.tar.gz", "not a readable archive"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(server, tmp_path, path, says):
    with pytest.raises(DownloadError) as caught:
        downloads.fetch(server.url + path, cache_dir=tmp_path, timeout=10)
    text = str(caught.value)
    assert says in text and "\n" not in text
    assert server.url + path in text and str(downloads.cached_path(server.url + path, tmp_path)) in text
    assert "--opts model.backbone.pretrained=null" in text
    assert not _files(tmp_path)


@pytest.mark.parametrize(("path", "says"), [("/silent.pdparams", "timed out"), ("/trickle.pdparams", "bytes came in")])
def test_a_stalled_server_is_given_up(server, tmp_path, path, says):
    start = time.monotonic()
    with pytest.raises(DownloadError, match=says):
        downloads.fetch(server.url + path, cache_dir=tmp_path, timeout=0.5)
    assert time.monotonic() - start < 5 and not _files(tmp_path)


@pytest.mark.parametrize("path", ["/large.tar.gz", "/large.zip", "/plain/net.pdparams"])
def test_sizes_are_limited(server, tmp_path, monkeypatch, path):
    monkeypatch.setattr(downloads, "_MAX_BYTES", 100_000)
    with pytest.raises(DownloadError, match="100000 bytes"):
        downloads.fetch(server.url + path, cache_dir=tmp_path)
    assert not _files(tmp_path)


def test_checksum(server, tmp_path):
    url = server.url + "/plain/net.pdparams"
    right = hashlib.sha256(WEIGHTS).hexdigest()
    with pytest.raises(DownloadError, match=f"its SHA-256 is {right}, expected {'0' * 64}"):
        downloads.fetch(url, "0" * 64, tmp_path)
    assert not _files(tmp_path)
    kept = downloads.fetch(url, right.upper(), tmp_path)
    kept.write_bytes(b"damaged")
    assert downloads.fetch(url, right, tmp_path).read_bytes() == WEIGHTS


def test_a_file_of_the_same_name_from_elsewhere_is_not_taken_for_it(server, tmp_path):
    first = downloads.fetch(server.url + "/dygraph/resnet_ssld.tar.gz", cache_dir=tmp_path)
    second = downloads.fetch(server.url + "/other/resnet_ssld.tar.gz", cache_dir=tmp_path)
    assert first == second and second.read_bytes() == WEIGHTS[::-1]


def test_a_file_put_there_by_hand_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SEG_HOME", str(tmp_path))
    url = "https://weights.invalid/dygraph/resnet_ssld.tar.gz"
    by_hand = tmp_path / "pretrained_model" / "resnet_ssld" / "model.pdparams"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(b"mine")
    assert downloads.fetch(url) == by_hand and by_hand.read_bytes() == b"mine"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host.invalid/a.pdparams", "https://host.invalid/"])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(DownloadError, match="not an http or https address"):
        downloads.fetch(url, cache_dir=tmp_path)


def test_a_secure_address_that_leads_to_an_insecure_one_is_refused(server, tmp_path, monkeypatch):
    plain = urllib.request.urlopen
    insecure = server.url + "/net.zip"
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: plain(insecure, timeout=timeout))
    with pytest.raises(DownloadError, match="which is not https"):
        downloads.fetch("https://weights.invalid/net.zip", cache_dir=tmp_path)
    assert not _files(tmp_path)


def test_unreachable_server_and_unusable_cache(server, tmp_path):
    with pytest.raises(DownloadError, match="could not be fetched: .*refused"):
        downloads.fetch("http://127.0.0.1:1/a.pdparams", cache_dir=tmp_path, timeout=5)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="could not be fetched"):
        downloads.fetch(server.url + "/net.zip", cache_dir=tmp_path / "file")


def test_sections_are_copied_with_urls_resolved(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SEG_HOME", str(tmp_path))
    url = server.url + "/net.zip"
    cfg = {"type": "DNLNet", "pretrained": "some/file.pdparams", "backbone": {"type": "ResNet18", "pretrained": url}}
    found = downloads.resolve_pretrained(cfg)
    assert found["backbone"]["pretrained"] == str(tmp_path / "pretrained_model" / "net" / "model.pdparams")
    assert found["pretrained"] == "some/file.pdparams" and cfg["backbone"]["pretrained"] == url
    assert (
        downloads.resolve_pretrained({"type": "A", "backbone": {"pretrained": None}})["backbone"]["pretrained"] is None
    )
    with pytest.raises(DownloadError, match=r"--opts model\.pretrained=null"):
        downloads.resolve_pretrained({"pretrained": server.url + "/nothing.zip"})
    with pytest.raises(DownloadError, match="SHA-256"):
        downloads.resolve_pretrained({"pretrained": server.url + "/net.tar"}, {server.url + "/net.tar": "0" * 64})


class _Group:
    """Ranks as threads: what `distributed` does over processes, with a barrier that a missing rank makes fail."""

    def __init__(self, size: int):
        self.barrier, self.values, self.local = threading.Barrier(size, timeout=10), [None] * size, threading.local()

    def gather(self, value):
        self.values[self.local.rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values


@pytest.mark.parametrize(("path", "fails"), [("/net.zip", False), ("/nothing.zip", True)])
def test_one_rank_downloads_and_all_learn_how_it_went(server, tmp_path, monkeypatch, path, fails):
    group, outcome = _Group(3), [None] * 3
    monkeypatch.setenv("SEG_HOME", str(tmp_path))
    monkeypatch.setattr(collectives, "place_on_machine", lambda: ("here", group.local.rank, 3))
    monkeypatch.setattr(collectives, "all_gather_object", group.gather)

    def run(rank):
        group.local.rank = rank
        try:
            outcome[rank] = downloads.resolve_pretrained({"backbone": {"pretrained": server.url + path}})
        except DownloadError as error:
            outcome[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(server.asked) == 1 and outcome[0] is not None and outcome.count(outcome[0]) == 3
    assert isinstance(outcome[0], str) == fails


def test_the_first_rank_of_every_machine_downloads(monkeypatch, tmp_path):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    monkeypatch.setenv("SEG_HOME", str(tmp_path))
    monkeypatch.setattr(collectives, "all_gather_object", lambda value: [value])
    chosen = []
    for rank, in_node in ((0, 0), (1, 1), (2, 0), (3, 1)):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        monkeypatch.setenv("PADDLE_LOCAL_RANK", str(in_node))
        monkeypatch.setenv("PADDLE_LOCAL_SIZE", "2")
        fetched = []
        monkeypatch.setattr(downloads, "fetch", lambda url, *_, fetched=fetched, **__: fetched.append(url))
        downloads.resolve_pretrained({"backbone": {"pretrained": "https://example.org/a.pdparams"}})
        chosen.append(bool(fetched))
    assert chosen == [True, False, True, False]
