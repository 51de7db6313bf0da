"""CascadePSP: masks refined by a network that was trained on labelled masks.

Cheng, Chung, Tai and Tang, "CascadePSP", CVPR 2020, run by its authors' package ``segmentation-refinement`` (the extra
``cascadepsp``): network and arithmetic are the package's, weights are read and checked here, since the package unpickles
them. SOHES (§3.1) uses it per mask as public code of its kind does [code: UnSAM]: on the crop of the image around the
centre of the mask's box, as far in each direction as the box's longer side, in ``fast`` mode (the global step only).

The network is *supervised*: what it touches is not unsupervised any more, and its ``METHOD`` says so.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ovskit.core.masks.boxes import Box, decode_box, encode_box
from ovskit.core.models.weights.source import WeightsSource, sha256_of
from ovskit.core.models.weights.state_dict import NoInit, fit, read_state_dict
from ovskit.core.records import Mask, Rle, RunTable, UInt8
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.device import choose_device
from ovskit.core.runtime.errors import OutputError, UsageError, WeightsUnavailableError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.network import Background, connect

if TYPE_CHECKING:
    from ovskit.core.refine.methods.cascadepsp import CascadeOptions

log = get_logger("cascadepsp")

NAME = "cascadepsp"
URL = "https://github.com/hkchengrex/CascadePSP/releases/download/v1.0/model"
_HOST = "github.com"
_CONNECT_SECONDS = 3.0


def cascadepsp_refiner(options: CascadeOptions, device: str = "auto") -> Refiner:
    """The refiner ``cascadepsp``, its network loaded; ``device`` is auto, cpu, cuda or cuda:N.

    On the CPU torch's number of threads is set to one for the whole process: its convolutions round differently with
    every other number, and images are worked on in parallel anyway.

    Raises UsageError if the package is not installed; for the weights MissingInputError
    if the file given is not there, InputError if it is not CascadePSP's or would run code, WeightsUnavailableError if
    none is given and none can be downloaded, OutputError if a download cannot be stored.
    """
    given = None if options.weights is None else WeightsSource(NAME, options.weights)
    try:
        from segmentation_refinement import eval_helper
        from segmentation_refinement.models.psp.pspnet import RefinementModule
    except ImportError as error:
        raise UsageError(f"cascadepsp needs pip install 'ovskit[cascadepsp]' ({error})") from None
    where = _device(device)
    path = _published_weights() if given is None else given.path(None)
    with NoInit():
        network: torch.nn.Module = RefinementModule()
    _load(network, path)
    network.eval().to(where)
    process = eval_helper.process_im_single_pass if options.fast else eval_helper.process_high_res_im
    return Refiner(NAME, _Refine(network, process, where, options), weights_sha256=sha256_of(path))


class _Refine:
    """The network, ready for any image; several threads may call it at once."""

    def __init__(
        self, network: torch.nn.Module, process: Callable[..., torch.Tensor], device: torch.device, options: CascadeOptions
    ) -> None:
        self._network, self._process, self._device = network, process, device
        self._smallest, self._largest = options.smallest, options.largest
        # Two of the largest crops at once on the CPU, which is about 8 GB, and correspondingly more small ones [choice].
        self._room = _Room(2 * options.largest**2 if device.type == "cpu" else 0)
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
        self._std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)
        if device.type == "cpu":
            torch.set_num_threads(1)

    def __call__(self, pixels: UInt8, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        height, width = pixels.shape[:2]
        refined = []
        for k, mask in enumerate(masks):
            box = crop_around(table, k)
            top, left, bottom, right = box
            longer, shorter = max(bottom - top, right - left), min(bottom - top, right - left)
            side = min(max(longer, self._smallest), self._largest)
            if not table.areas[k] or shorter * side < longer:  # nothing to refine, or a thread that resizing would lose
                refined.append(mask.rle)
                continue
            output = self._refine_crop(pixels[top:bottom, left:right], decode_box(table, k, box), side)
            refined.append(encode_box(output > 127, box, height, width))
        return refined

    def _refine_crop(self, pixels: UInt8, mask: UInt8, side: int) -> UInt8:
        """The package's answer for one crop, uint8 (h, w): probability × 255, cut off. Its masks are what exceeds 127."""
        with self._room.take(side * side), torch.inference_mode(), _same_every_time(self._device):
            image = torch.from_numpy(pixels.copy()).to(self._device).permute(2, 0, 1)[None].float().div(255)
            image = image.sub(self._mean).div(self._std)
            segment = torch.from_numpy(mask).to(self._device)[None, None].float().sub(0.5).div(0.5)
            output: UInt8 = (self._process(self._network, image, segment, side)[0, 0] * 255).byte().cpu().numpy()
        return output


def crop_around(table: RunTable, k: int) -> Box:
    """(top, left, bottom, right) of the crop for mask ``k``: its box's centre ± its longer side, within the image [code: UnSAM].

    Halves of a pixel are cut off. The mask lies wholly inside. An empty mask has the empty box (0, 0, 0, 0).
    """
    x, y, width, height = table.bboxes[k]
    side = max(width, height)
    middle_x, middle_y = x + width / 2, y + height / 2
    return (
        int(max(0.0, middle_y - side)),
        int(max(0.0, middle_x - side)),
        int(min(table.height, middle_y + side)),
        int(min(table.width, middle_x + side)),
    )


class _Room:
    """How much may be under way at once: what is taken stays within ``total``, or is one thing alone."""

    def __init__(self, total: int) -> None:
        self._total, self._taken = total, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._total)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


def _same_every_time(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """On CUDA the algorithms that repeat themselves, in single precision throughout; the flags are the process's."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def _device(name: str) -> torch.device:
    device = choose_device(name)
    if device.type != "mps":
        return device
    if name != "auto":
        raise UsageError(f"--device {name}: cascadepsp's pooling does not run there; use --device cpu")
    return torch.device("cpu")


def _load(network: torch.nn.Module, path: Path) -> None:
    """Every weight of the network from the file, on the CPU. Raises InputError if the file is not of this network."""
    state = read_state_dict(path)
    # How many batches a norm has seen means nothing here, and old checkpoints do not say.
    counters = {key: value for key, value in network.state_dict().items() if key.endswith(".num_batches_tracked")}
    fit(network, {**counters, **state}, path, NAME)


def _published_weights() -> Path:
    """The authors' checkpoint where their package keeps it, downloaded by the package if it is not there.

    Raises WeightsUnavailableError within seconds if nothing answers, or if what comes is not the published file.
    """
    from segmentation_refinement import download

    path = Path("~/.segmentation-refinement/model").expanduser()
    try:
        if path.is_file() and download.check_model(path):
            return path
        failure = _unreachable()
        if failure is not None:
            raise _unavailable(path, failure)
        log.warning("downloading the weights of cascadepsp into %s, once", path)  # a quarter of a gigabyte: say why it takes long
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".model.{os.getpid()}.part")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                download.download_model(part)
            if not download.check_model(part):
                raise _unavailable(path, f"what {_HOST} sends is not the published file (its MD5 differs)")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except PermissionError as error:
        raise OutputError(f"weights of cascadepsp: cannot use {path}: {error.strerror}") from None
    except OSError as error:  # the HTTP library's errors are OSErrors too, without a number
        if error.errno is not None:
            raise OutputError(f"weights of cascadepsp: cannot write {path}: {error.strerror}") from None
        raise _unavailable(path, f"{_HOST} cannot be used ({type(error).__name__})") from error
    return path


def _unreachable() -> str | None:
    """Why nothing can be downloaded, or None. The package itself would wait for minutes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:  # set by those who want no downloads at all
        return "downloads are switched off (HF_HUB_OFFLINE)"
    try:
        Background(lambda: connect(URL, _CONNECT_SECONDS)).result(_CONNECT_SECONDS)
    except (OSError, ValueError):
        return f"{_HOST} cannot be reached"
    return None


def _unavailable(path: Path, reason: str) -> WeightsUnavailableError:
    return WeightsUnavailableError(f"no weights for cascadepsp: not in {path}, and {reason}; fetch {URL} and give it with --weights")
