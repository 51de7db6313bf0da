"""Colours are told apart by normal and by dichromatic eyes. Oracles: CIELAB of scikit-image, Machado et al. 2009."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from skimage.color import rgb2lab

from ovskit.core.show.colours import colours

# Machado, Oliveira, Fernandes 2009, table 1, severity 1.0; for linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}


def lab_as_seen(rgb: npt.NDArray[np.uint8], vision: str) -> npt.NDArray[np.float64]:
    values = rgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISIONS[vision].T, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(encoded[None])[0]


@pytest.mark.parametrize("vision", VISIONS)
def test_ranks_close_to_each_other_look_different(vision: str) -> None:
    lab = lab_as_seen(colours(200), vision)
    distances = [np.linalg.norm(lab[i] - lab[j]) for i in range(195) for j in range(i + 1, i + 6)]
    # A CIELAB distance of 2.3 is just noticeable.
    assert np.percentile(distances, 5) > 10
    if vision == "normal":
        assert min(distances) > 20


def test_a_colour_does_not_depend_on_how_many_are_asked_for() -> None:
    assert np.array_equal(colours(300)[:7], colours(7))
    assert colours(0).shape == (0, 3)


def test_no_colour_is_near_black_white_or_grey() -> None:
    lab = lab_as_seen(colours(500), "normal")
    assert lab[:, 0].min() > 45
    assert lab[:, 0].max() < 90
    assert np.hypot(lab[:, 1], lab[:, 2]).min() > 15
