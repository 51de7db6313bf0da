"""What the published numbers were measured with: sizes, windows, templates and thresholds, by protocol, label space and method.

``clip-336`` is that of the training-free methods (SCLIP's line) [code, as LANGUAGE E has it]: shorter side 336, of Cityscapes 560, windows
of 224 in steps of 112, the 80 templates, a softmax of 40 times the cosines; ProxyCLIP's and CorrCLIP's windows are 336. Their thresholds
are each method's own: the same number means nothing for another. ``groupvit`` is that of GroupViT and CoCu: shorter side 448 (Cityscapes
1024), windows of 448 in steps of 224, for ADE and COCO-Stuff 512, 224 and 112, one template; its thresholds are about GroupViT's own
scores, so none is taken over here.
"""

from __future__ import annotations

from typing import NamedTuple

PROTOCOLS = ("clip-336", "groupvit")


class Protocol(NamedTuple):
    """``short_side``, ``window`` and ``stride`` in pixels; the name of the ``templates``; ``scale`` of cosines; ``min_prob``, below which a
    pixel is background; whether the usual words for the background take part (``words.USUAL_BACKGROUND``)."""

    short_side: int
    window: int
    stride: int
    templates: str
    scale: float
    min_prob: float
    background: bool


_CITY, _LARGE = ("cityscapes-19",), ("ade-150", "coco-stuff-171")
# θ and scale by method and label space; voc-21, context-60 and COCO-Object are those with a background.
_VOC, _CONTEXT, _OBJECT = "voc-21", "context-60", "coco-object-81"
_MIN_PROB: dict[str, dict[str, float]] = {
    "proxy": {_VOC: 0.2, _CONTEXT: 0.15, _OBJECT: 0.25},
    "corr": {_VOC: 0.2, _CONTEXT: 0.15, _OBJECT: 0.25},
    "sclip": dict.fromkeys((_VOC, _CONTEXT, _OBJECT), 0.1),
    "naclip": dict.fromkeys((_VOC, _CONTEXT, _OBJECT), 0.1),
}
_SCALE: dict[str, dict[str, float]] = {"sclip": {_VOC: 65.0, _CONTEXT: 50.0, _OBJECT: 50.0}}
_USUAL_SCALE = 40.0
# Whose published lists of names begin with words for the background.
_WITH_WORDS = (_VOC, _OBJECT)


def protocol(name: str, space: str, method: str) -> Protocol:
    """The values of protocol ``name`` for a label space and a method, by their names; for spaces that no paper used, the usual ones."""
    space = space.removeprefix("groupvit-")
    if name == "groupvit":
        side, window, stride = (512, 224, 112) if space in _LARGE else (1024 if space in _CITY else 448, 448, 224)
        return Protocol(side, window, stride, "plain", _USUAL_SCALE, 0.0, False)
    side, window = 560 if space in _CITY else 336, 336 if method in ("proxy", "corr") else 224
    scale = _SCALE.get(method, {}).get(space, _USUAL_SCALE)
    return Protocol(side, window, 112, "imagenet-80", scale, _MIN_PROB.get(method, {}).get(space, 0.0), space in _WITH_WORDS)
