"""Feed-forward layers of block-diagonal matrices."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tokens

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig, hub, monarch, save
from posterhall.models.counts import flops_per_token, parameters_count
from posterhall.models.monarch import BlockDiagonal, Monarch, compress

SIZES = [(32, 48, 4), (48, 16, 4), (36, 36, 6), (16, 64, 2)]
KINDS = ("monarch", "block_diagonal")


def matrix(cls, inputs, outputs, blocks, *, seed=0, std=0.5):
    made = cls(inputs, outputs, blocks).double()
    made.initialise(torch.Generator().manual_seed(seed), std)
    return made


def decoder(kind, **more):
    shape = {"vocab_size": 40, "dim": 32, "layers": 2, "heads": 2, "ffn_dim": 64, "max_length": 48}
    return Decoder(DecoderConfig(**{**shape, "init_std": 0.3, "ffn": kind, **more}), seed=1).eval()


def written_out(layer):
    """Two block-diagonal matrices and the permutation between them, as numpy matrices."""
    first, second = (each.detach().numpy() for each in (layer.first, layer.second))
    blocks, inner, inputs = first.shape
    right, left = (
        np.zeros((blocks * inner, blocks * inputs)),
        np.zeros((blocks * second.shape[1], blocks * inner)),
    )
    for k in range(blocks):
        right[k * inner : (k + 1) * inner, k * inputs : (k + 1) * inputs] = first[k]
        left[k * second.shape[1] : (k + 1) * second.shape[1], k * inner : (k + 1) * inner] = second[k]
    rank = inner // blocks
    places = np.arange(blocks * inner).reshape(blocks, blocks, rank).transpose(1, 0, 2).ravel()
    return left @ np.eye(blocks * inner)[places] @ right


@pytest.mark.parametrize(("inputs", "outputs", "blocks"), SIZES)
def test_a_monarch_layer_is_two_block_diagonal_matrices_with_a_permutation_between(inputs, outputs, blocks):
    layer = matrix(Monarch, inputs, outputs, blocks)
    expected = written_out(layer)
    assert np.allclose(layer.dense().detach().numpy(), expected, atol=1e-12)
    x = torch.randn(3, 5, inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert np.allclose(layer(x).detach().numpy(), x.numpy() @ expected.T, atol=1e-12)
    size = monarch.matrix_size("monarch", inputs, outputs, blocks)
    assert size == sum(each.numel() for each in layer.parameters())


@given(
    blocks=st.integers(2, 5),
    shares=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    inwards=st.booleans(),
    rows=st.lists(st.integers(1, 4), max_size=2),
)
def test_monarch_layers_of_any_shape_compute_their_matrix_and_come_back_from_it(
    blocks, shares, inwards, rows
):
    least = blocks**2 * shares[0]
    sizes = [least, least + blocks * shares[1]]
    inputs, outputs = sizes if inwards else sizes[::-1]
    layer = matrix(Monarch, inputs, outputs, blocks)
    x = torch.randn(*rows, inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dense = layer.dense().detach()
    assert torch.allclose(layer(x), x @ dense.T, atol=1e-10)
    again = matrix(Monarch, inputs, outputs, blocks, seed=7)
    again.approximate(dense)
    assert torch.allclose(again(x), layer(x), atol=1e-9)


@pytest.mark.parametrize(("inputs", "outputs", "blocks"), SIZES)
def test_a_block_diagonal_layer_is_scipys_block_diagonal_matrix(inputs, outputs, blocks):
    from scipy.linalg import block_diag

    layer = matrix(BlockDiagonal, inputs, outputs, blocks)
    expected = block_diag(*layer.weight.detach().numpy())
    assert np.array_equal(layer.dense().detach().numpy(), expected)
    x = torch.randn(4, inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert np.allclose(layer(x).detach().numpy(), x.numpy() @ expected.T, atol=1e-12)
    size = monarch.matrix_size("block_diagonal", inputs, outputs, blocks)
    assert size == layer.weight.numel()


@pytest.mark.parametrize("cls", [Monarch, BlockDiagonal])
@pytest.mark.parametrize(("inputs", "outputs", "blocks"), SIZES)
def test_what_has_the_form_already_is_approximated_exactly(cls, inputs, outputs, blocks):
    given = matrix(cls, inputs, outputs, blocks, seed=2).dense().detach()
    found = matrix(cls, inputs, outputs, blocks, seed=3)
    found.approximate(given)
    assert float((found.dense().detach() - given).abs().max()) < 1e-12


def test_the_nearest_monarch_matrix_leaves_what_eckart_and_young_say_of_each_tile():
    given = np.random.default_rng(0).normal(size=(48, 32))
    found = matrix(Monarch, 32, 48, 4)
    found.approximate(torch.from_numpy(given))
    left = ((found.dense().detach().numpy() - given) ** 2).sum()
    tiles = given.reshape(4, 12, 4, 8).transpose(0, 2, 1, 3).reshape(16, 12, 8)
    values = np.linalg.svd(tiles, compute_uv=False)
    assert left == pytest.approx((values[:, found.rank :] ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize("cls", [Monarch, BlockDiagonal])
@pytest.mark.parametrize(("inputs", "outputs"), [(256, 1024), (512, 256)])
def test_outputs_begin_with_the_variance_that_a_dense_matrix_gives(cls, inputs, outputs):
    layer = matrix(cls, inputs, outputs, 4, std=0.02)
    x = torch.randn(400, inputs, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert float(layer(x).detach().std()) == pytest.approx(0.02 * inputs**0.5, rel=0.03)


def test_monarch_matrices_reach_every_output_from_every_input_and_block_diagonal_ones_do_not():
    assert bool((matrix(Monarch, 32, 64, 4).dense() != 0).all())
    assert float((matrix(BlockDiagonal, 32, 64, 4).dense() != 0).double().mean()) == 1 / 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_structured_layer_computes_what_a_dense_one_of_its_matrices_does(kind):
    model = decoder(kind).double()
    layer = model.blocks[0].feed_forward
    dense = Decoder(DecoderConfig(vocab_size=4, dim=32, layers=1, ffn_dim=64), seed=0).blocks[0].feed_forward
    dense = dense.double()
    with torch.no_grad():
        by_block = layer.gate_up.dense().unflatten(0, (4, 2, -1))  # block, gate or up, entry
        dense.gate_up.weight.copy_(by_block.transpose(0, 1).flatten(0, 2))
        dense.down.weight.copy_(layer.down.dense())
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert torch.allclose(layer(x), dense(x), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_chunks_give_the_logits_of_the_whole(kind):
    model = decoder(kind)
    ids = tokens(model, 2, 11)
    with torch.no_grad():
        whole = model(ids)
        cache = model.new_cache(2)
        parts = [model(ids[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 11))]
    assert float((torch.cat(parts, dim=1) - whole).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind):
    layer = monarch.StructuredFeedForward(8, 16, kind=kind, blocks=2).double()
    layer.initialise(torch.Generator().manual_seed(0), std=0.4, std_out=0.4)
    x = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_operations_are_counted(kind):
    model = decoder(kind)
    held = sum(each.numel() for name, each in model.named_parameters() if ".feed_forward." in name)
    parts = parameters_count(model.config)
    assert parts.feed_forward == held < parameters_count(decoder("dense").config).feed_forward
    assert parts.total == sum(each.numel() for each in model.parameters())
    dense = decoder("dense").config
    saved = parameters_count(dense).feed_forward - held
    assert flops_per_token(dense, 16) - flops_per_token(model.config, 16) == 6 * saved


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_has_our_own_architecture_and_comes_back(kind, tmp_path):
    model = decoder(kind, ffn_blocks=2)
    save(model, tmp_path / "model")
    said = json.loads((tmp_path / "model/config.json").read_text())
    assert said["model_type"] == "posterhall_decoder"  # no Llama, which transformers would misread
    assert (said["ffn"], said["ffn_blocks"]) == (kind, 2)
    again = hub.load(tmp_path / "model")
    ids = tokens(model)
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))


def test_an_older_checkpoint_that_says_nothing_of_feed_forward_layers_is_dense(tmp_path):
    model = decoder("dense", positions="none")  # under our own names
    path = save(model, tmp_path / "model") / "config.json"
    said = json.loads(path.read_text())
    path.write_text(
        json.dumps({key: each for key, each in said.items() if not key.startswith("ffn_b") and key != "ffn"})
    )
    ids = tokens(model)
    with torch.no_grad():
        assert torch.equal(hub.load(tmp_path / "model")(ids), model(ids))


def test_dense_decoders_begin_as_they_did():
    """Seeds of weights hang on names: a new kind of layer must not move the old ones."""
    weight = decoder("dense").blocks[1].feed_forward.down.weight
    from posterhall import seeds

    seed = seeds.derive(1, "decoder", "blocks.1.feed_forward.down.weight")
    drawn = torch.empty(32, 64).normal_(0.0, 0.3 / 2, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(weight, drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_whose_matrices_have_the_form_is_compressed_without_loss(kind):
    structured = decoder(kind)
    dense = decoder("dense")
    with torch.no_grad():
        for block, theirs in zip(dense.blocks, structured.blocks, strict=True):
            for name in ("mixer", "mixer_norm", "feed_forward_norm"):
                getattr(block, name).load_state_dict(getattr(theirs, name).state_dict())
            by_block = theirs.feed_forward.gate_up.dense().unflatten(0, (4, 2, -1))
            block.feed_forward.gate_up.weight.copy_(by_block.transpose(0, 1).flatten(0, 2))
            block.feed_forward.down.weight.copy_(theirs.feed_forward.down.dense())
        dense.embedding.copy_(structured.embedding)
        found, ids = compress(dense, kind=kind), tokens(structured)
        assert float((found(ids) - structured(ids)).abs().max()) < 1e-4
        assert found.config == structured.config
    with pytest.raises(DataError, match="no dense feed-forward layer"):
        compress(structured, kind=kind)
    with pytest.raises(DataError, match="there are no feed-forward layers"):
        compress(decoder("dense", ffn_dim=0), kind=kind)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"dim": 24, "ffn": "monarch"}, "ffn_blocks is 4 with dim 24 and ffn_dim 64; .* 2 would"),
        ({"dim": 96, "ffn_dim": 256, "ffn": "monarch", "ffn_blocks": 3}, "its square the lesser: 2, 4 would"),
        (
            {"dim": 24, "heads": 2, "ffn": "block_diagonal", "ffn_blocks": 5},
            "it must divide both: 2, 4, 8 would",
        ),
        ({"dim": 6, "heads": 1, "ffn_dim": 5, "ffn": "monarch"}, "no number does; take other sizes"),
        ({"dim": 32, "ffn": "monarch", "ffn_dim": 0}, "there are no feed-forward layers"),
        ({"dim": 32, "ffn": "butterfly"}, "one of: dense, monarch, block_diagonal"),
        ({"dim": 32, "ffn": "monarch", "ffn_blocks": 1}, "ffn_blocks is 1"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape, said):
    with pytest.raises(DataError, match=said):
        DecoderConfig(vocab_size=10, **shape)


def test_a_matrix_says_which_blocks_would_fit():
    with pytest.raises(
        DataError, match="5 blocks for a monarch matrix from 32 to 48 entries; 2, 4 would fit"
    ):
        Monarch(32, 48, 5)


def test_what_has_no_linear_layers_of_a_known_name_is_not_quantised_on_loading(tmp_path):
    save(decoder("monarch"), tmp_path / "model")
    with pytest.raises(DataError, match="no linear layers are known that could be quantised"):
        hub.load(tmp_path / "model", quantize="nf4")
