"""tiny_model.py - a Llama of random weights that vLLM serves on a CPU, and a tokenizer
whose tokens are bytes.

    tiny_model.py FOLDER

Weights are large enough for attention to decide the next token: what is decoded from
a wrong KV cache is then something else.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<s>", "</s>"]


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: i for i, text in enumerate(SPECIAL + alphabet)}
    bytewise = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise, bos_token=SPECIAL[0], eos_token=SPECIAL[1]
    )


def model(vocabulary):
    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=0.1,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: tiny_model.py FOLDER")
    words = tokenizer()
    words.save_pretrained(sys.argv[1])
    model(len(words)).save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()
