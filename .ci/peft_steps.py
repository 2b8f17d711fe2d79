"""Measures PEFT's training steps for .ci/bench-peft, and prints the table.

    peft_steps.py step MODEL.hf TEXT CONTEXT RANK STEPS MODE    one line of JSON: tokens/s, memory, losses
    peft_steps.py table RESULTS.jsonl                                 the table of all lines

A step is forward, backward, clipping and AdamW on one sequence, as graft's is. The
memory is the peak after the model is loaded, so that loading does not count.
"""
import json
import os
import resource
import sys
import time

# name: type of weights, quantized to, type of the adapter
MODES = {
    "float32": ("float32", None, True),
    "bfloat16": ("bfloat16", None, True),
    "bfloat16, adapter too": ("bfloat16", None, False),
    "NF4, float32": ("float32", "nf4", True),
    "NF4, bfloat16": ("bfloat16", "nf4", True),
    "NF4, bfloat16, adapter too": ("bfloat16", "nf4", False),
    "INT8": ("float32", "int8", True),
}
AGAIN = ", checkpointing"


def step(model_path, data, context, rank, steps, mode):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    torch.set_num_threads(os.cpu_count())
    again = mode.endswith(AGAIN)
    dtype, held, float32 = MODES[mode.removesuffix(AGAIN)]
    dtype = getattr(torch, dtype)
    how = {}
    if held == "nf4":
        how["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    elif held == "int8":
        how["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype, low_cpu_mem_usage=True, **how)
    if again:  # takes effect after train() only
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
        model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
                           autocast_adapter_dtype=float32)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0)
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")  # the peak so far is forgotten
    times, losses = [], []
    with open(data) as f:
        tokens = tokenizer(f.read())["input_ids"]
    for i in range(steps + 1):  # the first fills caches and is not counted
        ids = torch.tensor([tokens[i * context:(i + 1) * context]])
        assert ids.shape[1] == context, "the text is too short"
        begun = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - begun)
        losses.append(loss.item())
    peak = 0
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
    print(json.dumps({"who": "PEFT", "mode": mode, "tokens_per_second": context / min(times[1:]), "peak": peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                      "losses": losses, "parameters": sum(p.numel() for p in trained), "torch": torch.__version__}))


def table(path):
    with open(path) as f:
        lines = [json.loads(x) for x in f]
    best = {}
    for x in lines:
        key = (x["who"], x["mode"])
        if key not in best or x["tokens_per_second"] > best[key]["tokens_per_second"]:
            best[key] = x
    ours = [b for (who, _), b in best.items() if who == "graft"]
    theirs = [b for (who, _), b in best.items() if who == "PEFT"]
    if not ours or not theirs:
        sys.exit("there is nothing to compare yet")
    plain, smallest = best["graft", "activations kept"], min(ours, key=lambda x: x["peak"])
    print(f"{'':42} {'tokens/s':>9} {'peak MB':>8} {'first loss':>10}   graft's float32 with activations kept: speed, memory ({smallest['mode']})")
    for x in sorted(ours, key=lambda x: x["tokens_per_second"]):
        print(f"{'graft, ' + x['mode']:42} {x['tokens_per_second']:9.0f} {x['peak'] / 1e6:8.0f} {x['losses'][0]:10.4f}")
    for x in sorted(theirs, key=lambda x: x["tokens_per_second"]):
        # The runs of graft that were made right before and after.
        pairs = [y["tokens_per_second"] for y in lines if y["who"] == "graft" and y["mode"] == plain["mode"] and x["mode"] in y["beside"].split("|")]
        print(f"{'PEFT, ' + x['mode']:42} {x['tokens_per_second']:9.0f} {x['peak'] / 1e6:8.0f} {x['losses'][0]:10.4f}   "
              f"{max(pairs) / x['tokens_per_second']:.2f} times, {plain['peak'] / x['peak']:.2f} of it ({smallest['peak'] / x['peak']:.2f})")


if __name__ == "__main__":
    if sys.argv[1] == "step":
        step(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]), sys.argv[7])
    else:
        table(sys.argv[2])
