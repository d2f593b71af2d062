from __future__ import annotations

import pytest

from finetune.backends.local.attention import attend
from finetune.backends.local.quiet import quiet

with quiet():
    import torch

LENGTHS = (5, 1, 9)


def make_rows(dtype):
    torch.manual_seed(0)
    total = sum(LENGTHS)
    query = torch.randn(1, 4, total, 8)
    key, value = torch.randn(2, 1, 2, total, 8).unbind()
    borders = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
    return query, key, value.to(dtype), {"cu_seq_lens_q": borders, "max_length_q": max(LENGTHS)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_is_computed_in_the_numbers_of_the_values(dtype):
    query, key, value, borders = make_rows(dtype)

    mixed, _ = attend(None, query, key, value, None, scaling=0.3, **borders)
    same, _ = attend(None, query.to(dtype), key.to(dtype), value, None, scaling=0.3, **borders)

    assert mixed.dtype == dtype
    assert torch.equal(mixed, same)


def test_no_sample_sees_another():
    query, key, value, borders = make_rows(torch.float32)
    out, _ = attend(None, query, key, value, None, scaling=0.3, **borders)

    key[:, :, : LENGTHS[0]] += 1
    value[:, :, : LENGTHS[0]] += 1
    other, _ = attend(None, query, key, value, None, scaling=0.3, **borders)

    assert not torch.allclose(out[:, : LENGTHS[0]], other[:, : LENGTHS[0]])
    assert torch.equal(out[:, LENGTHS[0] :], other[:, LENGTHS[0] :])
