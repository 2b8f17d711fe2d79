"""Makes a small random Qwen2-MoE model, with a shared expert: make_qwen2moe.py TOKENIZER_FOLDER OUT"""
import json
import os
import shutil
import sys

import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

source, out = sys.argv[1:]
with open(os.path.join(source, "config.json")) as f:
    vocab = json.load(f)["vocab_size"]
torch.manual_seed(1)
config = Qwen2MoeConfig(vocab_size=vocab, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, shared_expert_intermediate_size=64,
                        num_experts=4, num_experts_per_tok=2, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, bos_token_id=1,
                        eos_token_id=2, tie_word_embeddings=False, decoder_sparse_step=1, mlp_only_layers=[], max_position_embeddings=512)
model = Qwen2MoeForCausalLM(config).float()
with torch.no_grad():
    for name, p in model.named_parameters():
        if p.dim() > 1:
            p.normal_(0, p.shape[-1] ** -0.5)
        else:
            p.normal_(0.0 if "bias" in name else 1.0, 0.2)
model.save_pretrained(out)
for name in os.listdir(source):
    if name.startswith("tokenizer"):
        shutil.copy(os.path.join(source, name), out)
