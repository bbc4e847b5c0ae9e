"""Products through oneDNN: the same numbers as torch's own, and torch's own wherever it is not there."""

from __future__ import annotations

import json

import platformdirs
import pytest
import torch

from posterhall.errors import DataError
from posterhall.objectives import products

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _decide_anew():
    products.chosen.cache_clear()
    yield
    products.chosen.cache_clear()


@pytest.fixture
def onednn(monkeypatch):
    monkeypatch.setenv("POSTERHALL_PRODUCTS", "onednn")
    if not any(products.chosen()):
        pytest.skip("this torch has no oneDNN product")


def operands(*shapes, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.empty(shape, dtype=dtype).normal_(generator=generator).requires_grad_() for shape in shapes]


def steps(x, weight, grad):
    y = products.linear(x, weight)
    return (y.detach(), *torch.autograd.grad(y, (x, weight), grad))


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize(
    ("lead", "outputs", "inputs"),
    [((4, 64), 96, 200), ((300,), 500, 33), ((2, 3, 50), 129, 127), ((7,), 5, 3)],
)
def test_values_and_gradients_are_torchs(lead, outputs, inputs):
    x, weight, grad = operands((*lead, inputs), (outputs, inputs), (*lead, outputs))
    got = steps(x, weight, grad.detach())
    exact = [each.detach().double().requires_grad_() for each in (x, weight)]
    y = torch.nn.functional.linear(*exact)
    wanted = (y.detach(), *torch.autograd.grad(y, exact, grad.detach().double()))
    for mine, true in zip(got, wanted, strict=True):
        assert mine.shape == true.shape
        assert (mine - true).abs().max() < 2e-6 * true.abs().max() * inputs**0.5


@pytest.mark.usefixtures("onednn")
def test_it_is_deterministic():
    x, weight, grad = operands((256, 200), (300, 200), (256, 300))
    first, second = (steps(x, weight, grad.detach()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.usefixtures("onednn")
def test_strided_and_double_and_autocast_inputs_are_taken_too():
    x, weight = operands((200, 300), (400, 300))
    other = torch.nn.functional.linear(x[:, :150], weight[:, :150])
    torch.testing.assert_close(products.linear(x[:, :150], weight[:, :150]), other, rtol=1e-5, atol=1e-4)
    x64, w64 = operands((200, 300), (400, 300), dtype=torch.float64)
    assert products.linear(x64, w64).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weight).dtype == torch.bfloat16


@pytest.mark.usefixtures("onednn")
def test_products_without_gradients():
    x, y, w = (each.detach() for each in operands((256, 130), (256, 170), (130, 170)))
    torch.testing.assert_close(products.product(x, w), x @ w, rtol=1e-5, atol=1e-4)
    for a, b in ((x, y), (y, x)):
        torch.testing.assert_close(products.outer(a, b), a.t() @ b, rtol=1e-5, atol=1e-4)
    total = products.add_outer(None, x, y)
    products.add_outer(total, x, y)
    torch.testing.assert_close(total, 2 * (x.t() @ y), rtol=1e-5, atol=1e-4)


def test_a_torch_without_the_operator_is_left_to_itself(monkeypatch):
    monkeypatch.setenv("POSTERHALL_PRODUCTS", "onednn")

    def gone(*_):
        raise AttributeError("no such operator")

    monkeypatch.setattr(products, "_onednn", gone)
    assert products.chosen() == (False, False, False)
    x, weight = operands((256, 200), (300, 200))
    torch.testing.assert_close(products.linear(x, weight), x @ weight.t())


def test_the_choice_is_measured_once_and_remembered(monkeypatch, tmp_path):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _: str(tmp_path / "cache"))
    monkeypatch.setattr(products, "_measured", lambda: (True, False, True))
    first = products.chosen()
    [(_, kept)] = json.loads((tmp_path / "cache" / "products.json").read_text()).items()
    assert list(kept) == ["forward", "inputs", "weights"]

    def again():
        raise AssertionError("measured twice")

    monkeypatch.setattr(products, "_measured", again)
    products.chosen.cache_clear()
    assert products.chosen() == first == (True, False, True)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}'])
def test_a_damaged_memory_is_measured_anew(monkeypatch, tmp_path, content):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    monkeypatch.setattr(products, "_measured", lambda: (False, True, False))
    (tmp_path / "products.json").write_text(content)
    assert products.chosen() == (False, True, False)


def test_the_faster_one_is_found():
    def slow():
        return sum(range(20000))

    assert products._is_faster(lambda: None, slow)
    assert not products._is_faster(slow, lambda: None)


def test_a_wrong_wish_is_refused(monkeypatch):
    monkeypatch.setenv("POSTERHALL_PRODUCTS", "mkl")
    with pytest.raises(DataError, match="torch or onednn"):
        products.chosen()
