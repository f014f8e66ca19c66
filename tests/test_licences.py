# SPDX-License-Identifier: Apache-2.0
"""Every source file names its licence, by SPDX's line at its top."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = "# SPDX-License-Identifier: Apache-2.0"
FOLDERS = ("paddle_dnl", "tests", "tools", "deploy", "test_tipc", "benchmarks")


def test_source_files_name_their_licence():
    files = [path for folder in FOLDERS for ending in ("py", "sh") for path in (ROOT / folder).rglob(f"*.{ending}")]
    files += ROOT.glob("*.py")
    assert len(files) > 300
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    without = [
        str(path.relative_to(ROOT)) for path, text in texts.items() if text and LINE not in text.splitlines()[:2]
    ]
    assert not without, f"put {LINE!r} first into {without}"


def test_licence_is_the_one_named():
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
