"""DINO's loss: against a slow reference, in closed forms, and where its gradient goes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.train.recipes.dino_loss import Head, Losses, multi_crop_loss, teacher_momentum, teacher_temperature, updated_centre
from tests.reference import dino as slow

WARM = {"student_temperature": 0.1, "teacher_temperature": 0.04}


def one(student: torch.Tensor, teacher: torch.Tensor, centre: torch.Tensor | None = None) -> Losses:
    return multi_crop_loss(student, teacher, torch.zeros(student.shape[-1]) if centre is None else centre, **WARM)


@settings(max_examples=40, deadline=None)
@given(
    views=st.integers(2, 5), shown=st.integers(1, 2), count=st.integers(1, 3), width=st.integers(2, 6), seed=st.integers(0, 2**32 - 1),
    hot=st.floats(0.03, 2.0), warm=st.floats(0.03, 2.0),
)  # fmt: skip
def test_loss_and_centre_are_the_reference(views: int, shown: int, count: int, width: int, seed: int, hot: float, warm: float) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = rng.uniform(-1, 1, (views, count, width)), rng.uniform(-1, 1, (shown, count, width))
    centre = rng.uniform(-0.5, 0.5, width)
    loss, entropy = slow.loss(student, teacher, centre, hot, warm)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        given = [torch.tensor(value, dtype=dtype) for value in (student, teacher, centre)]
        found = multi_crop_loss(*given, student_temperature=hot, teacher_temperature=warm)
        assert float(found.loss) == pytest.approx(loss, rel=tolerance, abs=tolerance)
        assert float(found.entropy) == pytest.approx(entropy, rel=tolerance, abs=tolerance)
        assert float(found.divergence) == pytest.approx(loss - entropy, rel=10 * tolerance, abs=10 * tolerance)
    moved = updated_centre(torch.tensor(centre), torch.tensor(teacher).mean((0, 1)), 0.9)
    np.testing.assert_allclose(moved.numpy(), slow.centre(centre, teacher, 0.9), rtol=1e-12, atol=1e-12)


def test_both_kinds_of_collapse_show_as_no_divergence() -> None:
    alike = one(torch.zeros(4, 3, 8), torch.zeros(2, 3, 8))
    assert float(alike.loss) == pytest.approx(math.log(8))
    assert float(alike.entropy) == pytest.approx(math.log(8))
    assert float(alike.divergence) == pytest.approx(0, abs=1e-6)
    same = torch.zeros(4, 3, 8)
    same[..., 5] = 10.0
    single = one(same, same[:2])
    assert [float(value) for value in single] == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_teacher_that_knows_nothing_asks_for_nothing() -> None:
    student = torch.randn(3, 4, 8)
    even = torch.zeros(2, 4, 8)
    assert float(one(student, even).loss) > math.log(8)
    assert float(one(torch.zeros(3, 4, 8), torch.randn(2, 4, 8)).loss) == pytest.approx(math.log(8), rel=1e-5)


def test_a_view_is_not_compared_with_itself() -> None:
    teacher = torch.zeros(2, 1, 3)
    teacher[0, 0, 0] = teacher[1, 0, 1] = 10.0
    own = torch.cat([teacher[:1], teacher[1:]])
    swapped = own.flip(0)
    assert float(one(swapped, teacher).loss) == pytest.approx(0, abs=1e-6)
    assert float(one(own, teacher).loss) == pytest.approx(100, rel=1e-4)


def test_centring_takes_away_what_all_have_in_common() -> None:
    torch.manual_seed(0)
    student, teacher, common = torch.randn(3, 4, 8), torch.randn(2, 4, 8), torch.randn(8)
    plain, centred = one(student, teacher), one(student, teacher + common, common)
    assert float(centred.loss) == pytest.approx(float(plain.loss), rel=1e-4)
    assert float(one(student, teacher + common).loss) != pytest.approx(float(plain.loss), rel=1e-2)


def test_the_gradient_reaches_the_student_alone() -> None:
    student, teacher, centre = torch.randn(3, 4, 8).requires_grad_(), torch.randn(2, 4, 8).requires_grad_(), torch.zeros(8).requires_grad_()
    one(student, teacher, centre).loss.backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert centre.grad is None


@pytest.mark.parametrize(
    ("student", "teacher", "centre"),
    [((1, 2, 4), (1, 2, 4), 4), ((2, 2, 4), (3, 2, 4), 4), ((3, 2, 4), (2, 1, 4), 4), ((3, 2, 4), (2, 2, 4), 5), ((3, 2, 4), (0, 2, 4), 4)],
)
def test_shapes_that_do_not_fit(student: tuple[int, ...], teacher: tuple[int, ...], centre: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        one(torch.zeros(student), torch.zeros(teacher), torch.zeros(centre))


def test_schedules_begin_and_end_where_they_should() -> None:
    momenta = [teacher_momentum(step, 100, 0.996) for step in range(101)]
    assert momenta[0] == pytest.approx(0.996)
    assert momenta[50] == pytest.approx(0.998)
    assert momenta[100] == pytest.approx(1)
    assert momenta == sorted(momenta)
    assert teacher_momentum(0, 1, 0.5) == pytest.approx(0.5)
    temperatures = [teacher_temperature(step, 0.04, 0.07, 30) for step in (0, 15, 30, 1000)]
    assert temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert teacher_temperature(0, 0.04, 0.07, 0) == 0.07


def head() -> Head:
    torch.manual_seed(0)
    return Head(12, hidden=24, bottleneck=8, prototypes=10)


def test_logits_are_cosines_in_float32() -> None:
    network, tokens = head(), torch.randn(6, 12)
    plain = network(tokens)
    assert plain.shape == (6, 10)
    assert plain.abs().max() <= 1 + 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        low = network(tokens)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, plain, atol=0.05, rtol=0)
    with torch.no_grad():
        network.prototypes.mul_(torch.rand(10, 1) * 9 + 0.5)
    torch.testing.assert_close(network(tokens), plain)


def test_a_frozen_last_layer_has_a_gradient_of_zero_and_others_have_theirs() -> None:
    network, tokens = head(), torch.randn(6, 12)
    gradients = []
    for frozen in (False, True):
        network.zero_grad()
        logits = network(tokens, frozen=frozen)
        (logits * torch.arange(10)).sum().backward()
        assert network.prototypes.grad is not None
        gradients.append([parameter.grad.clone() for parameter in network.mlp.parameters()])
        assert bool((network.prototypes.grad == 0).all()) == frozen
    for free, bound in zip(*gradients, strict=True):
        torch.testing.assert_close(free, bound)
