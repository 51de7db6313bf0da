"""Where weights come from: a file, the cache, a hub that is there, and hubs that are not.

Each case runs in a process of its own, since the hub library reads its environment once; the hub is a server here.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovskit.core.models.weights.source import HubFile, WeightsSource, sha256_of
from ovskit.core.runtime.errors import MissingInputError

CONTENT = b"weights" * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import json, sys
from pathlib import Path
from ovskit.core.models.weights.source import HubFile, WeightsSource
from ovskit.core.runtime.errors import OvsError
try:
    path = WeightsSource("tiny-net", None).path(HubFile.of("timm/tiny", "pytorch_model.bin"))
    Path(sys.argv[1]).write_text(json.dumps({"path": str(path)}))
except OvsError as error:
    Path(sys.argv[1]).write_text(json.dumps({"code": int(error.exit_code), "message": str(error)}))
"""


class Hub(BaseHTTPRequestHandler):
    """A hub with one file, or one that answers everything with ``status``."""

    filename = "model.safetensors"
    status = 200

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        there = self.status == 200 and self.path == f"/timm/tiny/resolve/main/{self.filename}"
        self.send_response(self.status if self.status != 200 else 200 if there or "/resolve/" + COMMIT in self.path else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        if there:
            self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("Content-Length", str(len(CONTENT)))
        else:
            if self.status == 200:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()
        if body and there:
            self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@contextmanager
def serve(status: int = 200, filename: str = "model.safetensors") -> Iterator[str]:
    handler = type("Handler", (Hub,), {"status": status, "filename": filename})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run(code: str, home: Path, **environment: str) -> dict[str, object]:
    """The outcome that a process writes down; it must say nothing on its own account and end in good time."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HTTP", "ALL_PROXY", "NO_PROXY"))}
    outcome = home.parent / "outcome.json"
    done = subprocess.run(
        [sys.executable, "-c", code, str(outcome)],
        env={**kept, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("downloading ")]
    assert (done.stdout, said, done.returncode) == ("", [], 0), done.stderr
    return dict(json.loads(outcome.read_text()))


@pytest.mark.parametrize("filename", ["model.safetensors", "pytorch_model.bin"])
def test_a_download_is_found_in_the_cache_without_the_hub(tmp_path: Path, filename: str) -> None:
    with serve(filename=filename) as endpoint:
        first = run(FETCH, tmp_path / "home", HF_ENDPOINT=endpoint)
    path = Path(str(first["path"]))
    assert path.read_bytes() == CONTENT
    assert path.name == filename
    assert sha256_of(path) == hashlib.sha256(CONTENT).hexdigest()
    assert run(FETCH, tmp_path / "home", HF_ENDPOINT=endpoint) == first  # the server is gone by now
    assert run(FETCH, tmp_path / "home", HF_HUB_OFFLINE="1") == first


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "HTTP 404"), (500, "HTTP 500"), (503, "HTTP 503"), (401, "refuses access"), (403, "refuses access")]
)
def test_a_hub_that_says_no(tmp_path: Path, status: int, reason: str) -> None:
    with serve(status) as endpoint:
        check_unavailable(run(FETCH, tmp_path / "home", HF_ENDPOINT=endpoint), tmp_path, reason)


def test_a_hub_without_the_file(tmp_path: Path) -> None:
    with serve(filename="other.bin") as endpoint:
        outcome = run(FETCH, tmp_path / "home", HF_ENDPOINT=endpoint)
    check_unavailable(outcome, tmp_path, "has no model.safetensors or pytorch_model.bin in timm/tiny")


def test_a_hub_that_accepts_and_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        check_unavailable(run(FETCH, tmp_path / "home", HF_ENDPOINT=endpoint), tmp_path, "does not answer")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "127.0.0.1 cannot be reached"),
        ({"HF_ENDPOINT": "http://hub.invalid"}, "hub.invalid cannot be reached"),
        ({"HTTPS_PROXY": "http://127.0.0.1:9"}, "huggingface.co cannot be reached"),
        ({"HTTPS_PROXY": "127.0.0.1:http"}, "huggingface.co cannot be reached"),
    ],
)
def test_no_network(tmp_path: Path, environment: dict[str, str], reason: str) -> None:
    check_unavailable(run(FETCH, tmp_path / "home", **environment), tmp_path, reason)


def check_unavailable(outcome: dict[str, object], folder: Path, reason: str) -> None:
    message = str(outcome["message"])
    assert outcome["code"] == 69
    assert "\n" not in message
    for part in ("tiny-net", str(folder / "home" / "hub"), "--weights", reason):
        assert part in message


def test_nothing_cached_and_no_network_is_known_before_a_model_library_is_imported(tmp_path: Path) -> None:
    names = ["dino-vitb8", "timm:vit_tiny_patch16_224", "clip:ViT-B-32/openai"]
    code = f"""
import json, sys
from pathlib import Path
import torch
from ovskit.core.models.registry import load_backbone
from ovskit.core.runtime.errors import OvsError
messages = {{}}
for name in {names}:
    try:
        load_backbone(name, device=torch.device("cpu"))
    except OvsError as error:
        messages[name] = [int(error.exit_code), str(error)]
assert not {{"timm", "open_clip"}} & set(sys.modules)
Path(sys.argv[1]).write_text(json.dumps(messages))
"""
    outcome = run(code, tmp_path / "home", HF_HUB_OFFLINE="1")
    for name in names:
        status, message = outcome[name]  # type: ignore[misc]
        assert status == 69
        assert all(part in message for part in (name, str(tmp_path / "home" / "hub"), "--weights"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path, message in [(tmp_path / "none.pth", "no such file"), (tmp_path, "is a folder")]:
        with pytest.raises(MissingInputError, match=f"--weights {path}: {message}"):
            WeightsSource("tiny-net", path)


def test_a_file_given_is_the_file_used(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(CONTENT)
    assert WeightsSource("tiny-net", path).path(HubFile.of("timm/tiny", "pytorch_model.bin")) == path
    assert WeightsSource("tiny-net", path).path(None) == path


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=5000))
def test_hash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("repo", "filename", "expected"),
    [
        ("timm/a", "pytorch_model.bin", HubFile("timm/a", ("model.safetensors", "pytorch_model.bin"))),
        ("o/b@v2", "open_clip_pytorch_model.bin", HubFile("o/b", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"), "v2")),
        ("o/c", "net.pth", HubFile("o/c", ("net.safetensors", "net.pth"))),
        ("o/d", "net.safetensors", HubFile("o/d", ("net.safetensors",))),
    ],
)
def test_the_safetensors_copy_comes_first(repo: str, filename: str, expected: HubFile) -> None:
    assert HubFile.of(repo, filename) == expected
