"""The language-model loss against cross entropy of whole logits in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.objectives.lm import IGNORED, lm_loss, token_logprobs

torch.set_num_threads(1)


def case(batch=3, tokens=7, dim=5, vocabulary=11, *, share=1.0, seed=0, dtype=torch.float64, scale=2.0):
    """States, head and labels, `share` of them real."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.empty(batch, tokens, dim, dtype=dtype).normal_(0, scale, generator=generator)
    head = torch.empty(vocabulary, dim, dtype=dtype).normal_(0, scale, generator=generator)
    labels = torch.randint(0, vocabulary, (batch, tokens), generator=generator)
    labels[torch.rand(batch, tokens, generator=generator) >= share] = IGNORED
    return hidden.requires_grad_(), head.requires_grad_(), labels


def reference(hidden, head, labels, z_loss, reduction):
    """All at once in float64, and its gradients."""
    h, w = (each.detach().double().requires_grad_() for each in (hidden, head))
    logits = h @ w.t()
    nll = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(labels.shape)
    loss = nll + z_loss * logits.logsumexp(-1).square() * (labels != IGNORED)
    return (
        h,
        w,
        loss
        if reduction == "none"
        else loss.sum() / (1 if reduction == "sum" else max(1, int((labels != IGNORED).sum()))),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("z_loss", [0.0, 0.3])
@pytest.mark.parametrize(("share", "chunk"), [(1.0, None), (0.4, 4), (1.0, 1), (0.0, 3)])
def test_loss_and_gradients_are_those_of_whole_logits(reduction, z_loss, share, chunk):
    hidden, head, labels = case(share=share)
    loss, metrics = lm_loss(hidden, head, labels, chunk=chunk, z_loss=z_loss, reduction=reduction)
    h, w, expected = reference(hidden, head, labels, z_loss, reduction)
    torch.testing.assert_close(loss, expected.detach())
    upstream = torch.linspace(-1, 2, loss.numel(), dtype=torch.float64).view(loss.shape)
    got = torch.autograd.grad(loss, (hidden, head), upstream)
    wanted = torch.autograd.grad(expected, (h, w), upstream)
    torch.testing.assert_close(got, wanted)
    assert metrics["tokens"] == int((labels != IGNORED).sum())
    _, _, nll = reference(hidden, head, labels, 0.0, "sum")
    assert float(metrics["nll_sum"]) == pytest.approx(float(nll.detach()))


@given(st.integers(1, 30), st.integers(0, 4), st.floats(0, 1))
def test_the_chunk_changes_nothing(chunk, seed, share):
    hidden, head, labels = case(2, 13, seed=seed, share=share)
    whole, _ = lm_loss(hidden, head, labels, chunk=100)
    cut, _ = lm_loss(hidden, head, labels, chunk=chunk)
    torch.testing.assert_close(cut, whole)
    torch.testing.assert_close(
        torch.autograd.grad(cut, (hidden, head)), torch.autograd.grad(whole, (hidden, head))
    )


def test_float32_is_close_to_float64_also_for_extreme_logits():
    hidden, head, labels = case(4, 50, 16, 300, dtype=torch.float32, scale=6.0)
    loss, _ = lm_loss(hidden, head, labels)
    h, w, expected = reference(hidden, head, labels, 0.0, "mean")
    assert expected.item() > 100  # most labels' probabilities are below the smallest float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    got = torch.autograd.grad(loss, (hidden, head))
    for mine, true in zip(got, torch.autograd.grad(expected, (h, w)), strict=True):
        assert (mine - true).norm() < 1e-5 * true.norm()


def test_the_gradient_can_be_taken_twice_and_of_one_side_only():
    hidden, head, labels = case()
    loss, _ = lm_loss(hidden, head, labels)
    first = torch.autograd.grad(3 * loss, (hidden, head), retain_graph=True)
    again = torch.autograd.grad(loss, (hidden, head))
    torch.testing.assert_close(first[0], 3 * again[0])
    torch.testing.assert_close(first[1], 3 * again[1])
    alone, _ = lm_loss(hidden, head.detach(), labels)
    torch.testing.assert_close(torch.autograd.grad(alone, hidden)[0], again[0])


def test_without_gradients_none_are_computed():
    hidden, head, labels = case()
    with torch.no_grad():
        loss, _ = lm_loss(hidden, head, labels)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(lm_loss(hidden, head, labels)[0].item())


def test_memory_is_that_of_a_chunk_and_not_of_all_logits():
    hidden, head, labels = case(8, 512, 8, 4096, dtype=torch.float32)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(
                each.nbytes
                for each in (out if isinstance(out, tuple | list) else (out,))
                if isinstance(each, torch.Tensor)
            )
            return out

    with Watch():
        loss, _ = lm_loss(hidden, head, labels, chunk=256)
        loss.backward()
    assert max(sizes) <= 256 * 4096 * 4  # all logits would be 16 times that


def test_half_precision_states_give_a_float32_loss():
    hidden, head, labels = case(dtype=torch.float32)
    expected, _ = lm_loss(hidden, head, labels)
    low, _ = lm_loss(hidden.bfloat16(), head.bfloat16(), labels)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(expected.item(), rel=2e-2)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = lm_loss(hidden, head, labels)
    grads = torch.autograd.grad(mixed, (hidden, head))
    assert [each.dtype for each in grads] == [torch.float32] * 2
    true = torch.autograd.grad(expected, (hidden, head))
    for mine, wanted in zip(grads, true, strict=True):
        assert (mine - wanted).norm() < 0.05 * wanted.norm()


def test_log_probabilities_of_labels():
    hidden, head, labels = case(share=0.6)
    found = token_logprobs(hidden, head, labels, chunk=4)
    expected = (hidden @ head.t()).log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(found, expected * (labels != IGNORED))
    assert token_logprobs(hidden.float(), head.float(), labels).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": torch.tensor([[0, 11]])}, "0 to 11 for a vocabulary of 11"),
        ({"labels": torch.tensor([[-1, 3]])}, "-1 to 3"),
        ({"labels": torch.tensor([[0]])}, "do not fit"),
        ({"chunk": 0}, "at least 1"),
        ({"reduction": "total"}, "mean, sum or none"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    hidden, head, labels = case(1, 2)
    given = {"labels": labels, **change}
    with pytest.raises(DataError, match=said):
        lm_loss(hidden, head, **given)
