"""Cuts by rank and by energy, of matrices and of products, against singular values computed in full."""

import pytest
import torch

from sdxl_nb.lora.base import SDXL
from sdxl_nb.lora.changes.cutting import EXACT, Cut, of_matrix, of_product, reduced
from sdxl_nb.lora.layers import delta


def matrix(values, rows=300, columns=280, seed=0):
    """A matrix with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(n, len(values), generator=generator).double())[0] for n in (rows, columns))
    return ((u * torch.tensor(values).double()) @ v.T).float()


FALLING = [2.0 ** -(n / 2) for n in range(20)]


@pytest.mark.parametrize("rows", [300, EXACT - 200])  # svd_lowrank, and svd
@pytest.mark.parametrize(
    ("cut", "count"),
    [
        (Cut(3), 3),
        (Cut(energy=0.9), 4),
        (Cut(energy=0.5), 1),
        (Cut(3, 0.9), 3),
        (Cut(30, 0.9), 4),
        (Cut(energy=1.0), 20),
    ],
)
def test_a_matrix_keeps_its_leading_singular_values(rows, cut, count):
    """Of halving energies 1, 1/2, 1/4 ... n of them are 1 - 2^-n of all."""
    full = matrix(FALLING, rows)
    state = torch.random.get_rng_state()
    found = of_matrix(full, cut)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found.energy == pytest.approx(sum(value**2 for value in FALLING), rel=1e-6)
    if cut.energy == 1.0:  # all, and rounding perhaps
        count = max(count, len(found.s))
    torch.testing.assert_close(found.s[:20].double(), torch.tensor(FALLING[:count]).double(), atol=1e-6, rtol=1e-4)
    whole = (found.u * found.s) @ found.v
    lost = float((full - whole).double().square().sum())
    assert lost == pytest.approx(sum(value**2 for value in FALLING[count:]), rel=1e-3, abs=1e-9)


def test_energy_that_needs_more_than_the_first_try_is_reached():
    values = [1.0] * 40 + [0.01] * 40
    assert len(of_matrix(matrix(values), Cut(energy=0.999)).s) == 40


def test_a_product_without_a_cut_keeps_its_own_rank():
    up, down = torch.randn(30, 5), torch.randn(5, 40)
    up[:, 4], down[4] = up[:, 3], down[3]  # of rank 4
    found = of_product(up, down, Cut())
    assert len(found.s) == 4
    torch.testing.assert_close(((found.u * found.s) @ found.v).float(), up @ down, atol=1e-5, rtol=1e-5)


def test_one_rank_for_all_keeps_the_energy_of_all_and_ranks_by_layer_that_of_each():
    """Energies: strong 100 and 10, weak 1, 1 and 1; 95 % of the whole 113 is 107.35, which rank 2 has."""
    changes = {"strong": matrix([10.0, 10**0.5], 60, 50), "weak": matrix([1.0, 1.0, 1.0], 60, 50)}
    for per_layer, ranks, kept in [(False, (2, 2), 112 / 113), (True, (2, 3), 1.0)]:
        cut = Cut(energy=0.95, per_layer=per_layer)
        factors = {path: of_matrix(change, cut) for path, change in changes.items()}
        made = reduced(factors, dict.fromkeys(changes, (50,)), SDXL, cut)
        assert tuple(layer.rank for layer in made.weights.layers.values()) == ranks
        assert made.kept == pytest.approx(kept, rel=1e-6)
        assert made.kept_by_module["weak"] == pytest.approx(ranks[1] / 3, rel=1e-6)
        torch.testing.assert_close(delta(made.weights.layers["strong"]), changes["strong"], atol=1e-5, rtol=1e-5)
