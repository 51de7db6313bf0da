"""Where a model's weights come from: a file the user names, the local cache, or the hub.

Nothing here waits long for a network that is not there. Before anything is downloaded, the hub must have accepted a
connection within ``_CONNECT_SECONDS`` and described the file within ``_DESCRIBE_SECONDS``; from then on a download may
take as long as it needs, as long as bytes keep coming.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ovskit.core.runtime.errors import MissingInputError, OutputError, WeightsUnavailableError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.network import Background, connect

log = get_logger("weights")

_CONNECT_SECONDS = 3.0
_DESCRIBE_SECONDS = 4.0

# What the safetensors copy of a checkpoint is called where that is not just another suffix.
_SAFE_COPY = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}


@dataclass(frozen=True, slots=True)
class HubFile:
    """A checkpoint on the Hugging Face hub: the first of ``filenames`` that the repository has."""

    repo: str
    filenames: tuple[str, ...]
    revision: str | None = None

    @classmethod
    def of(cls, repo: str, filename: str) -> HubFile:
        """``filename`` in ``repo`` (``owner/name`` or ``owner/name@revision``), after the safetensors copy of it."""
        owner_and_name, _, revision = repo.partition("@")
        safe = _SAFE_COPY.get(filename, f"{Path(filename).stem}.safetensors")
        names = (filename,) if filename.endswith(".safetensors") else (safe, filename)
        return cls(owner_and_name, names, revision or None)


class HubProbe:
    """Finds out in the background whether the hub accepts connections, while slow imports run in front."""

    def __init__(self) -> None:
        from huggingface_hub import constants

        self.host = urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
        self.offline = bool(constants.HF_HUB_OFFLINE)
        self._attempt = None if self.offline else Background(lambda: connect(constants.ENDPOINT, _CONNECT_SECONDS))

    def failure(self) -> str | None:
        """Why the hub cannot be used, or None if it accepts connections. Waits ``_CONNECT_SECONDS`` at most."""
        if self._attempt is None:
            return "downloads are switched off (HF_HUB_OFFLINE)"
        try:
            self._attempt.result(_CONNECT_SECONDS)
        except (OSError, ValueError):
            return f"{self.host} cannot be reached"
        return None


class WeightsSource:
    """Where one model's weights are to come from: the file given, or the cache or hub.

    ``name`` is the model's name in messages. Raises MissingInputError at once if the file given is not there.
    """

    def __init__(self, name: str, weights: Path | None) -> None:
        self._name = name
        self._given = None if weights is None else _readable(weights)
        self._probe = HubProbe() if weights is None else None

    @property
    def given(self) -> bool:
        """Whether the user named a file."""
        return self._given is not None

    def fail_early(self) -> None:
        """Raise WeightsUnavailableError if nothing whatever is cached and the hub is out of reach.

        Then no model library is needed to know that there are no weights, and importing one takes seconds.
        """
        from huggingface_hub import constants

        if self._probe is None or any(Path(constants.HF_HUB_CACHE).glob("models--*")):
            return
        failure = self._probe.failure()
        if failure is not None:
            raise _unavailable(self._name, failure)

    def path(self, hub: HubFile | None) -> Path:
        """The file with the weights, downloaded if need be; ``hub`` is None for a model that no hub has.

        Raises WeightsUnavailableError where there is none to be had, OutputError if the disk is full.
        """
        if self._probe is None:
            assert self._given is not None
            return self._given
        if hub is None:
            raise WeightsUnavailableError(f"no weights for {self._name}: the hub has none; give a file with --weights")
        return _hub_weights(self._name, hub, self._probe)


def _readable(path: Path) -> Path:
    """The path itself, if it is a file that can be read. Raises MissingInputError otherwise."""
    if path.is_dir():
        raise MissingInputError(f"--weights {path}: is a folder; name the checkpoint file in it")
    if not path.is_file():
        raise MissingInputError(f"--weights {path}: no such file")
    if not os.access(path, os.R_OK):
        raise MissingInputError(f"--weights {path}: permission denied")
    return path


def _cached(hub: HubFile) -> Path | None:
    """The checkpoint in the local cache, or None. Never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    for filename in hub.filenames:
        found = try_to_load_from_cache(hub.repo, filename, revision=hub.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _hub_weights(model: str, hub: HubFile, probe: HubProbe) -> Path:
    """The checkpoint from the local cache or, failing that, downloaded into it.

    ``model`` is the name for messages. Raises WeightsUnavailableError where neither is to be had, OutputError if the
    disk is full.
    """
    cached = _cached(hub)
    if cached is not None:
        return cached
    failure = probe.failure()
    if failure is not None:
        raise _unavailable(model, failure, hub)
    with _quiet_hub():
        for filename in hub.filenames:
            path = _download(model, hub, filename, probe.host)
            if path is not None:
                return path
    raise _unavailable(model, f"{probe.host} has no {' or '.join(hub.filenames)} in {hub.repo}")


def _download(model: str, hub: HubFile, filename: str, host: str) -> Path | None:
    """One file of the hub, or None if the repository does not have it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    url = hf_hub_url(hub.repo, filename, revision=hub.revision)
    try:
        # hf_hub_download retries for a minute or more when the hub does not answer; asked first, with a deadline,
        # whether there is such a file, it only starts where a download can succeed.
        Background(lambda: get_hf_file_metadata(url, timeout=_DESCRIBE_SECONDS)).result(_DESCRIBE_SECONDS)
        log.warning("downloading %s of %s into %s, once", filename, hub.repo, _cache_folder())  # minutes may pass: say why
        return Path(hf_hub_download(hub.repo, filename, revision=hub.revision, etag_timeout=_DESCRIBE_SECONDS))
    except LocalEntryNotFoundError as error:  # the hub library's word for a connection lost; a subclass of the next
        raise _unavailable(model, _reason(host, error.__cause__ or error), hub) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # its HTTP, TLS, cache and transfer libraries share no base class; all mean: no weights
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise OutputError(f"weights of {model}: cannot write to the cache {_cache_folder()}: {error.strerror}") from error
        raise _unavailable(model, _reason(host, error), hub) from error


def _reason(host: str, error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{host} refuses access (HTTP {status}), log in or accept the model's licence there"
    if status is not None:
        return f"{host} answered HTTP {status}"
    if isinstance(error, TimeoutError):
        return f"{host} does not answer"
    return f"{host} cannot be used ({type(error).__name__})"


def _unavailable(model: str, reason: str, hub: HubFile | None = None) -> WeightsUnavailableError:
    what = "a file" if hub is None else f"{hub.filenames[0]} of {hub.repo}, fetched elsewhere,"
    return WeightsUnavailableError(f"no weights for {model}: not in the cache {_cache_folder()}, and {reason}; give {what} with --weights")


def _cache_folder() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub library's bars, retries and warnings off the terminal; what matters ends up in our one line."""
    import logging
    import warnings

    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex, read in pieces. Raises MissingInputError if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MissingInputError(f"{path}: {error.strerror}") from None
