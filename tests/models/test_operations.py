"""One eager bf16 training step of full-size SDXL at 1024 px, batch 1, rank 16, counted on the meta device."""

import pytest
import torch

from benchmarks.operations import activations, count, full_size, tally


def test_the_rule_counts_what_computes():
    a, b = torch.zeros(3, 4), torch.zeros(4, 5)
    with tally() as counted:
        c = a @ b
        c.t().view(5, 3)[1:].detach()
        torch.empty_like(c)
        c.add_(1)
        torch.nn.functional.scaled_dot_product_attention(a[None], a[None], a[None])
    assert counted.operations == 3
    assert counted.bytes == 4 * (12 + 20 + 15) + 4 * (15 + 15) + 4 * 4 * 12


def test_what_is_kept_is_counted_once():
    layer = torch.nn.Linear(4, 4)
    x = torch.zeros(2, 4, requires_grad=True)
    with activations(layer) as kept:
        y = layer(x)
        (y * y[:1]).sum()
    assert sorted(storage.nbytes() for storage in kept.values()) == [2 * 4 * 4, 2 * 4 * 4]  # x, and y once


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "operations", "moved", "kept"),
    [
        pytest.param(None, 3880, 62, 4.8, marks=pytest.mark.soak),
        pytest.param("selective", 4700, 75, 2.5, marks=pytest.mark.soak),
        pytest.param("whole", 5780, 83, 0.49, marks=pytest.mark.soak),
    ],
)
def test_a_step_costs_no_more_than(policy, operations, moved, kept):
    step = count(policy)
    assert 3000 < step.operations <= operations
    assert 40 < step.moved <= moved
    assert 0.4 < step.kept <= kept


@pytest.mark.slow
def test_masters_and_moments_are_fp32_under_a_bf16_unet():
    unet, flat, optimizer = full_size()
    assert flat.weights.dtype == flat.weights.grad.dtype == torch.float32
    assert flat.weights.numel() == 16 * 5_806_080 // 4 and unet.dtype == torch.bfloat16
    optimizer.step()
    assert {value.dtype for value in optimizer.state[flat.weights].values()} == {torch.float32}
