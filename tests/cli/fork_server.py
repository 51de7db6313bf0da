"""Commands without the seconds that importing torch takes: forked from a process that has imported it already.

``ForkServer`` starts this file as that process. For every command it forks a child, which takes over the pipes, the
environment and the folder that it is given and runs the installed script.

What is real: the script, its imports of ovskit (the server has none of it), its pipes, exit status and death by a signal, the
end of its threads, what is done at exit. What is not: third-party modules are there before they are asked for, so what they
print, read from the environment or fail at when imported is the server's, and so is the hash seed, equal for all commands of
one server; and a child ends before the interpreter takes its modules down.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

# What the commands spend their start on, as -X importtime lists it.
PRELOADED = (
    "torch", "torchvision", "numpy", "cv2", "faiss", "scipy.optimize", "PIL.Image", "orjson", "pycocotools.mask", "safetensors.torch",
    "huggingface_hub", "accelerate", "timm.data", "transformers.models.mask2former.modeling_mask2former",
    "typer", "typer._adapters", "pydantic", "rich.progress",
    "numba", "numba.core.typed_passes", "numba.cpython.charseq", "numba.np.arraymath", "numba.np.random.legacy",
    "numba.np.random.generator_methods",
)  # fmt: skip


class ForkServer:
    """One command at a time, in ``environment``; close it at the end."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._link, theirs = socket.socketpair()
        with theirs:
            # The children inherit sys.stdin and its like, which have found out what they lead to: pipes, as in subprocess.run.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()], env=environment,
            )  # fmt: skip

    def run(
        self, words: Sequence[str], *, input: bytes, env: Mapping[str, str], cwd: str | os.PathLike[str] | None, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """As ``subprocess.run`` with its output captured."""
        (stdin, feed), (out, stdout), (err, stderr) = (os.pipe() for _ in range(3))
        request = json.dumps({"words": words, "env": dict(env), "cwd": os.fspath(cwd or os.getcwd())}).encode()
        socket.send_fds(self._link, [struct.pack("=q", len(request))], [stdin, stdout, stderr])
        for number in (stdin, stdout, stderr):
            os.close(number)
        self._link.sendall(request)
        with ThreadPoolExecutor(3) as pool:
            pool.submit(_write, feed, input)
            output, errors = pool.submit(_read, out), pool.submit(_read, err)
            child = self._answer()
            self._link.settimeout(timeout)
            try:
                status = self._answer()
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                self._link.settimeout(None)
                self._answer()
                raise subprocess.TimeoutExpired(list(words), timeout, output.result(), errors.result()) from None
            self._link.settimeout(None)
        return subprocess.CompletedProcess(list(words), status, output.result(), errors.result())

    def close(self) -> None:
        self._link.close()
        self._process.communicate(timeout=60)

    def _answer(self) -> int:
        data = self._link.recv(8, socket.MSG_WAITALL)
        if len(data) < 8:
            _, errors = self._process.communicate()
            raise RuntimeError(f"the fork server has died: {errors.decode()}")
        return int(struct.unpack("=q", data)[0])


def _write(number: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(number, "wb") as file:
        file.write(data)


def _read(number: int) -> bytes:
    with open(number, "rb") as file:
        return file.read()


def _serve(link: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Answers each request with a child's id and its exit status. Returns the request in the child, None at the end in the server."""
    while True:
        head, fds, _, _ = socket.recv_fds(link, 8, 3)
        if not head:
            return None
        request = json.loads(link.recv(struct.unpack("=q", head)[0], socket.MSG_WAITALL))
        child = os.fork()
        if not child:
            link.close()
            return request, fds
        for number in fds:
            os.close(number)
        link.sendall(struct.pack("=q", child))
        _, status = os.waitpid(child, 0)
        link.sendall(struct.pack("=q", os.waitstatus_to_exitcode(status)))


def _become(request: dict[str, Any], fds: list[int]) -> None:
    """Makes this child what a process just started for the request is."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = list(request["words"])
    sys.path[0] = os.path.dirname(sys.argv[0])
    importlib.import_module("numpy").random.seed()  # as every process has its own; Python's generator sees to it itself


class _Ending:
    """Registered before all others, hence the last thing done at exit: the child ends here if it has a ``status`` and all is written.

    To take down every module that the server had imported would take longer than to import them.
    """

    status: int | None = None

    def __call__(self) -> None:
        if self.status is not None:
            with suppress(OSError):  # which the interpreter meets again, and reports
                for stream in (sys.stdout, sys.stderr):
                    if not stream.closed:
                        stream.flush()
                os._exit(self.status)


def main() -> None:
    ending = _Ending()
    atexit.register(ending)
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would copy all pages
    try:
        found = _serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:  # the tests have been interrupted, and end as well
        return
    if found is None:
        return
    _become(*found)
    ending.status = 1  # of an error, which the interpreter reports before
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        ending.status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    ending.status = 0


if __name__ == "__main__":
    main()
