"""Every output layer against float64 autograd: one stochastic step a term, in the order of the plan."""

import numpy as np
import pytest

from posterhall.embeddings.huffman import huffman_tree
from posterhall.embeddings.plans import Planner, apply, empty_matrix
from posterhall.embeddings.sampling import noise_distribution
from posterhall.embeddings.settings import Word2VecSettings

torch = pytest.importorskip("torch")

COUNTS = np.array([50, 20, 12, 9, 5, 4, 3, 2, 2], np.int64)
TOKENS = np.array([0, 3, 1, 2, 0, 5, 8, -1, 4, 6, 7, 0, 1, -1, 2], np.int32)


def matrices(planner, dim, seed):
    rng = np.random.default_rng(seed)
    inputs, outputs = empty_matrix(planner.words, dim), empty_matrix(planner.output_rows, dim)
    inputs[:, :dim] = rng.normal(size=(planner.words, dim)) / 2
    outputs[:, :dim] = rng.normal(size=(planner.output_rows, dim)) / 2
    return inputs, outputs


def term_loss(settings, hidden, outputs, plan, i):
    """-log likelihood of position i given a hidden vector, from the formulas, in float64."""
    if settings.loss == "softmax":
        return -torch.log_softmax(outputs @ hidden, 0)[plan.kept[i]]
    loss = 0.0
    drawn = range(plan.start[i], plan.start[i + 1])
    tree = huffman_tree(COUNTS)
    centre = plan.kept[i]
    path = 0
    if settings.needs_tree:  # product over the path of sigmoid([left] v'.v), paper eq. 3
        offset = len(COUNTS) if settings.needs_noise else 0
        for p in range(tree.start[centre], tree.start[centre + 1]):
            s = outputs[offset + tree.nodes[p]] @ hidden
            loss = loss - torch.nn.functional.logsigmoid(s if tree.bits[p] == 0 else -s)
            path += 1
    noise = noise_distribution(COUNTS, settings.noise_exponent)
    for position, p in enumerate(drawn):
        if position < path:
            continue
        word = plan.rows[p]
        s = outputs[word] @ hidden
        if settings.loss == "nce":
            s = s - np.log(settings.negative * noise[word])
        loss = loss - torch.nn.functional.logsigmoid(s if position == path else -s)
    return loss


def sgd_reference(settings, inputs, outputs, plan, step):
    win = torch.tensor(inputs, dtype=torch.float64, requires_grad=True)
    wout = torch.tensor(outputs, dtype=torch.float64, requires_grad=True)
    total, terms = 0.0, 0

    def descend(loss, cbow_contexts=None):
        nonlocal total, terms
        gin, gout = torch.autograd.grad(loss, (win, wout), allow_unused=True)
        with torch.no_grad():
            if cbow_contexts is not None and settings.cbow_mean and not settings.cbow_divide_error:
                gin = gin * len(cbow_contexts)  # the whole error to each context row, as the original
            win.sub_(step * gin)
            wout.sub_(step * gout)
        total += loss.item()

    for i in range(plan.n):
        contexts = [int(plan.kept[c]) for c in range(plan.lo[i], plan.hi[i]) if c != i]
        if not contexts:
            continue
        if settings.model == "cbow":
            rows = win[contexts]
            hidden = rows.mean(0) if settings.cbow_mean else rows.sum(0)
            descend(term_loss(settings, hidden, wout, plan, i), contexts)
            terms += 1
        elif settings.loss == "softmax":  # a window's pairs are taken at the same parameters
            descend(sum(term_loss(settings, win[c], wout, plan, i) for c in contexts))
            terms += len(contexts)
        else:
            for c in contexts:
                descend(term_loss(settings, win[c], wout, plan, i))
            terms += len(contexts)
    return win.detach().numpy(), wout.detach().numpy(), total, terms


def one_pass_matches(settings, tokens=TOKENS, step=0.05, seed=3):
    planner = Planner(settings, COUNTS)
    plan = planner.plan(tokens, seed)
    # A row named twice is updated twice in turn; autograd takes both at once. Plans here avoid it.
    assert plan.n > 1
    inputs, outputs = matrices(planner, settings.dim, seed)
    want_in, want_out, want_loss, want_terms = sgd_reference(settings, inputs, outputs, plan, step)
    loss, terms = apply(plan, inputs, outputs, settings, step)
    assert terms == want_terms
    assert loss == pytest.approx(want_loss, rel=1e-6)
    np.testing.assert_allclose(inputs, want_in, atol=1e-6)
    np.testing.assert_allclose(outputs, want_out, atol=1e-6)


def settings_for(model, loss, **changes):
    base = {"dim": 7, "window": 3, "negative": 5, "subsample": 0.0, "min_count": 1}
    return Word2VecSettings(model=model, loss=loss, **{**base, **changes})


def seed_without_repeats(settings, tokens=TOKENS):
    planner = Planner(settings, COUNTS)
    for seed in range(2000):
        plan = planner.plan(tokens, seed)
        if not plan.repeated[: plan.n].any():
            return seed
    raise AssertionError("every seed repeats a noise word")


@pytest.mark.parametrize("model", ["skipgram", "cbow"])
@pytest.mark.parametrize("loss", ["negative", "nce", "hierarchical", "hierarchical+negative", "softmax"])
@pytest.mark.parametrize("dim", [1, 8, 37])
def test_gradients_equal_float64_autograd(model, loss, dim):
    settings = settings_for(model, loss, dim=dim, negative=1)
    one_pass_matches(settings, seed=seed_without_repeats(settings))


@pytest.mark.parametrize("model", ["skipgram", "cbow"])
def test_a_full_tile_of_outputs_equals_autograd(model):
    settings = settings_for(model, "negative", negative=5)
    tokens = np.array([0, 1], np.int32)
    one_pass_matches(settings, tokens, seed=seed_without_repeats(settings, tokens))


@pytest.mark.parametrize("changes", [{"cbow_mean": False}, {"cbow_divide_error": True}])
def test_cbow_averaging_variants_equal_autograd(changes):
    settings = settings_for("cbow", "hierarchical", **changes)
    one_pass_matches(settings)


def test_a_repeated_noise_word_is_updated_twice_in_turn():
    settings = settings_for("skipgram", "negative", negative=12, window=1)
    planner = Planner(settings, COUNTS)
    tokens = np.array([0, 3], np.int32)
    plan = planner.plan(tokens, 5)
    assert plan.repeated[0]
    inputs, outputs = matrices(planner, settings.dim, 0)
    win, wout = inputs.astype(np.float64), outputs.astype(np.float64)
    step = 0.1
    for i, c in ((0, 1), (1, 0)):
        hidden = win[plan.kept[c]].copy()
        error = np.zeros_like(hidden)
        for p in range(plan.start[i], plan.start[i + 1]):
            row, sign = plan.rows[p], plan.signs[p]
            g = step * sign / (1 + np.exp(sign * (wout[row] @ hidden)))
            error += g * wout[row]
            wout[row] += g * hidden
        win[plan.kept[c]] += error
    apply(plan, inputs, outputs, settings, step)
    np.testing.assert_allclose(outputs, wout, atol=1e-6)
    np.testing.assert_allclose(inputs, win, atol=1e-6)


def test_padding_beyond_the_dimension_stays_zero():
    settings = settings_for("skipgram", "hierarchical+negative", dim=5)
    planner = Planner(settings, COUNTS)
    inputs, outputs = matrices(planner, 5, 1)
    apply(planner.plan(TOKENS, 1), inputs, outputs, settings, 0.5)
    assert not inputs[:, 5:].any()
    assert not outputs[:, 5:].any()


def test_loss_stays_exact_where_a_sigmoid_saturates():
    settings = settings_for("skipgram", "negative", dim=8, window=1, negative=1)
    planner = Planner(settings, COUNTS)
    plan = planner.plan(np.array([0, 3], np.int32), 1)
    inputs, outputs = matrices(planner, 8, 2)
    inputs *= 40
    outputs *= 40
    want = sgd_reference(settings, inputs, outputs, plan, 0.0)[2]
    assert want > 100
    assert apply(plan, inputs, outputs, settings, 0.0)[0] == pytest.approx(want, rel=1e-5)
