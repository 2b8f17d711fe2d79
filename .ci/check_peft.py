"""Compares graft's logits with PEFT's: check_peft.py GRAFT DIR [NAME BASE]... where DIR/NAME are PEFT folders on the model BASE."""

import json
import os
import subprocess
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def trained_tokens(config):
    tokens = config.get("trainable_token_indices") or config.get("token_indices") or []
    return tokens["embed_tokens"] if isinstance(tokens, dict) else tokens


graft, folder, *rest = sys.argv[1:]
torch.set_num_threads(2)
failed = False
for name, base in zip(rest[::2], rest[1::2]):
    torch.manual_seed(0)  # the same tokens, whatever else is compared
    path = os.path.join(folder, name)
    with open(os.path.join(path, "adapter_config.json")) as f:
        config = json.load(f)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    tokens = trained_tokens(config)
    if tokens and max(tokens) >= model.config.vocab_size:
        model.resize_token_embeddings(max(tokens) + 1)
    ids = torch.randint(3, model.config.vocab_size, (1, 24))
    invocation = config.get("alora_invocation_tokens")
    if invocation:
        ids[0, 10 : 10 + len(invocation)] = torch.tensor(invocation)
    if tokens:
        ids[0, 15 : 15 + len(tokens)] = torch.tensor(tokens)
    out = os.path.join(folder, name + ".safetensors")
    subprocess.run([graft, "debug", "logits", base, "--ids", " ".join(map(str, ids[0].tolist())), "--adapter", path, "-o", out], check=True)
    got = load_file(out)["logits"]
    with torch.no_grad():
        plain = model(input_ids=ids).logits[0]
        changed = PeftModel.from_pretrained(model, path).eval()
        if config["peft_type"] == "LORA" and "embed_tokens" in config["target_modules"] and model.config.tie_word_embeddings:
            # Beside the model PEFT changes the lookup alone; merged, embedding and head are one matrix, as they are for graft.
            changed = changed.merge_and_unload()
        want = changed(input_ids=ids).logits[0]
    error = ((got - want).norm() / want.norm()).item()
    change = ((plain - want).norm() / want.norm()).item()
    print(f"{name:12} differs by {error:.1e} of the logits; the adapter changes them by {change:.1e}")
    if not error < 1e-5 or change < 1e-3:
        failed = True
sys.exit(failed)
