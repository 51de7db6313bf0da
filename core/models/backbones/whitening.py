"""Principal axes and half-power whitening per image, in arithmetic whose result does not depend on the order of a sum.

A sum of float32 numbers changes with the number of threads and the size of the batch. Here everything that is summed
over an image is first rounded to a fixed grid of values so coarse that a float64 holds every partial sum of it: the
sum is then exact, hence the same in any order, on any number of threads and in any batch. With values of magnitude up
to 16 in steps of 2⁻¹², a product of two takes 32 bits, which leaves 2²¹ of them to add up without a rounding. What is
not exact is the eigen-decomposition of a covariance: LAPACK's gives the same bits on one thread and on several for up
to 64 channels (seen with MKL, and tested), not for 96 or more. It, and all that is as small, is done on the CPU wherever
the images are: then axes are the same on a GPU, whose own solvers are made for larger matrices or many more of them.
"""

from __future__ import annotations

import torch

STEP = 2.0**-12
"""The grid that ``quantise`` rounds features to: the spacing of float16, which features are stored in, between ¼ and ½."""

_AXIS_STEP = 2.0**-20  # entries of projection matrices: 21 bits, times 16 bits of a feature, times 64 channels, fits in 53
_FLOOR = 1e-2


def quantise(x: torch.Tensor, step: float = STEP) -> torch.Tensor:
    """``x`` rounded to multiples of ``step``, in its own type; ``step`` is a power of two."""
    return torch.round(x * (1 / step)) * step


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (b, c) and covariance (b, c, c), float64, of quantised channels (b, c, n): over n, the 1/n kind, exact sums."""
    x = x.double()
    mean = x.sum(dim=2) / x.shape[2]
    return mean, (x @ x.mT) / x.shape[2] - mean[:, :, None] * mean[:, None, :]


def standardise(x: torch.Tensor, floor: float) -> torch.Tensor:
    """Each channel of (b, c, n) with mean 0 and standard deviation 1 over its image; float32 in, quantised float32 out.

    The square of ``floor`` (> 0) is added to the variance, so that a channel that hardly varies, for instance by the noise
    of a compression, is not blown up. What exceeds 16 standard deviations is clipped.
    """
    y = quantise(x).double()
    mean = y.sum(dim=2, keepdim=True) / y.shape[2]
    variance = (y * y).sum(dim=2, keepdim=True) / y.shape[2] - mean * mean
    return quantise(((y - mean) / torch.sqrt(variance.clamp_min(0) + floor * floor)).float().clamp(-16, 16))


def principal_components(x: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` principal components of quantised channels (b, c, n): (b, count, n) float32, quantised, strongest last.

    The sign of a component is such that the entry of largest magnitude in its axis is positive.
    """
    mean, covariance = (moment.cpu() for moment in moments(x))
    axes = torch.linalg.eigh(covariance).eigenvectors[:, :, -count:]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return _project(x, mean, (axes * torch.where(largest < 0, -1.0, 1.0)).mT)


def half_whiten(x: torch.Tensor) -> torch.Tensor:
    """Quantised channels (b, c, n) centred and half-whitened per image: (b, c, n) float32.

    With the covariance U diag(λ) Uᵀ this is U diag((λ + ε)^(−1/4)) Uᵀ (x − mean): the standard deviation of each principal
    component becomes its square root, where full whitening would make all alike and none would leave most of the cosine to
    the first. The rotation back by U changes no cosine, and makes the result a continuous function of the image, without
    the arbitrary signs and order of eigenvectors. ε = 10⁻² of the mean λ [choice]. A constant image gives zeros.
    """
    mean, covariance = (moment.cpu() for moment in moments(x))
    values, axes = torch.linalg.eigh(covariance)
    values = values.clamp_min(0)
    # In units of the mean variance, so that nothing depends on scale; the clamp is for images without any variance.
    values = values / values.mean(dim=1, keepdim=True).clamp_min(1e-30)
    return _project(x, mean, (axes * (values + _FLOOR)[:, None, :] ** -0.25) @ axes.mT)


def _project(x: torch.Tensor, mean: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """``matrix`` (b, d, c) times ``x`` (b, c, n) less ``mean`` (b, c), on the device of ``x``; the other two are on the CPU."""
    matrix = quantise(matrix, _AXIS_STEP)
    # Small enough to be summed elementwise, whose order is always that of the last dimension.
    offset = (matrix * mean[:, None, :]).sum(dim=2, keepdim=True)
    return quantise((matrix.to(x.device) @ x.double() - offset.to(x.device)).float())
