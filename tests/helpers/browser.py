# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium for tests, driven over WebDriver with nothing but the standard library."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1200,900"
).split()
# Direct: a proxy of the machine must not see what goes to the driver.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One page of a WebDriver session."""

    def __init__(self, address: str):
        self._address = address

    def call(self, method: str, path: str, **body):
        """One command of the protocol; returns its value."""
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with _OPENER.open(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            text = json.loads(error.read())["value"]["message"].splitlines()[0]
            raise AssertionError(f"{method} {path}: {text}") from error

    def run(self, script: str):
        """The value of a function body in the page."""
        return self.call("POST", "/execute/sync", script=script, args=[])

    def move(self, x: float, y: float) -> None:
        """Moves the mouse to a point of the window."""
        move = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y), "origin": "viewport"}
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [move]}
        self.call("POST", "/actions", actions=[mouse])

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", "/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def errors(self) -> list[str]:
        """Errors that the page has logged: of scripts, and resources that could not be loaded."""
        entries = self.call("POST", "/se/log", type="browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Starts driver and browser; both are gone afterwards.

    Raises:
        unittest.SkipTest: this machine has no Chromium with its driver.
    """
    driver, program = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if not driver or not program:
        raise unittest.SkipTest("no Chromium with chromedriver on this machine (Debian: chromium, chromium-driver)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = next(line.split()[-1].rstrip(".") for line in process.stdout if "successfully on port" in line)
            options = {"binary": program, "args": [*_FLAGS, f"--user-data-dir={Path(folder) / 'profile'}"]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            driver_address = f"http://127.0.0.1:{port}"
            session = Browser(driver_address).call("POST", "/session", capabilities={"alwaysMatch": wanted})
            browser = Browser(f"{driver_address}/session/{session['sessionId']}")
            try:
                yield browser
            finally:
                browser.call("DELETE", "")
        finally:
            process.terminate()
            process.wait(timeout=30)
            process.stdout.close()
