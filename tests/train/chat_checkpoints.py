"""Small language models with a chat template, as transformers saves them."""

from __future__ import annotations

from posterhall.data.tokenizer import ByteTokenizer

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
START, END = 258, 259
"""Ids of its tokens, behind those of `ByteTokenizer`."""
LONGEST = 128
_IDS = {"vocab_size": 260, "bos_token_id": 256, "eos_token_id": 256}
_WIDE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": LONGEST,
}  # fmt: skip


def _made(kind):
    import transformers

    random = {"initializer_range": 0.3}
    match kind:
        case "llama":
            config = transformers.LlamaConfig(
                **_IDS, **_WIDE, **random, intermediate_size=48, num_key_value_heads=2
            )
            return transformers.LlamaForCausalLM(config)
        case "gpt2":
            config = transformers.GPT2Config(
                **_IDS, **random, n_embd=32, n_layer=2, n_head=4, n_positions=LONGEST
            )
            return transformers.GPT2LMHeadModel(config)
        case "gpt_neox":
            config = transformers.GPTNeoXConfig(**_IDS, **_WIDE, **random, intermediate_size=48)
            return transformers.GPTNeoXForCausalLM(config)
        case "opt":  # whose states may be narrower than its layers
            config = transformers.OPTConfig(
                **_IDS, **_WIDE, ffn_dim=48, word_embed_proj_dim=16, init_std=0.3, pad_token_id=257
            )
            return transformers.OPTForCausalLM(config)
    raise ValueError(kind)


def write(directory, kind, template=TEMPLATE):
    """One of random weights with a tokeniser of bytes."""
    import torch
    import transformers

    torch.manual_seed(0)
    _made(kind).save_pretrained(directory)
    ByteTokenizer().save(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return directory
