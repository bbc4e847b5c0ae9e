"""Small random checkpoints as `transformers` makes them, and what models make of a few tokens."""

from __future__ import annotations

import torch
import transformers

from posterhall import adapters
from posterhall.quantize import quantize

IDS = torch.arange(40).view(4, 10)


def llama(directory, seed=0, *, width=32, **settings):
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=width, intermediate_size=width + width // 2, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
        initializer_range=0.3, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return _made(transformers.LlamaForCausalLM, config, directory, seed, **settings)


def gpt2(directory, seed=0, *, width=32, **settings):
    config = transformers.GPT2Config(
        vocab_size=64, n_positions=64, n_embd=width, n_layer=2, n_head=4, initializer_range=0.3,
        eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return _made(transformers.GPT2LMHeadModel, config, directory, seed, **settings)


def _made(kind, config, directory, seed, *, dtype=torch.float32, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
    with torch.no_grad():  # biases begin as zero, which would hide a lost one
        for i, (name, each) in enumerate(model.named_parameters()):
            if name.endswith("bias"):
                each.copy_(torch.empty(each.shape).normal_(generator=torch.Generator().manual_seed(i)) * 0.1)
    model.to(dtype).save_pretrained(directory, **settings)
    return directory


MAKERS = {"llama": llama, "gpt2": gpt2}


def shake(model, seed=0, std=0.2):
    """As if trained: B is no longer zero."""
    with torch.no_grad():
        for i, each in enumerate(adapters.lora_parameters(model)):
            generator = torch.Generator().manual_seed(100 * seed + i)
            each.copy_(torch.empty(each.shape).normal_(0.0, std, generator=generator))
    return model


def logits(model, ids=IDS):
    with torch.no_grad():
        if not hasattr(model, "new_cache"):
            return model(input_ids=ids).logits
        return model.logits(model.hidden(ids))


def theirs(directory):
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def dense(directory, how):
    """transformers' model over the checkpoint with every linear weight quantised and restored."""
    model = theirs(directory)
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if (
            weight is None
            or weight.dim() != 2
            or "emb" in name
            or "head" in name
            or name.endswith(("wte", "wpe"))
        ):
            continue
        turned = hasattr(layer, "nf")
        plain = weight.detach().t().contiguous() if turned else weight.detach()
        back = quantize(plain, how.code, block=how.block, double=how.double).tensor(torch.float32)
        layer.weight = torch.nn.Parameter(back.t() if turned else back)
    return model
