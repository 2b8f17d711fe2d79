"""Compares graft's logits with llama.cpp's probabilities of the same tokens:
    compare.py LOGITS.safetensors PROBABILITIES.json MAX_KL
Prints mean and largest KL divergence (of graft's distribution from llama.cpp's) and top-1 agreement;
fails when the mean KL is above MAX_KL."""
import json
import sys

import numpy as np
from safetensors.numpy import load_file

logits = load_file(sys.argv[1])["logits"].astype(np.float64)
theirs = json.load(open(sys.argv[2]))
assert len(theirs) == len(logits), (len(theirs), len(logits))
kls, top = [], 0
for x, probs in zip(logits, theirs):
    x = x - x.max()
    ours = x - np.log(np.exp(x).sum())
    p = np.zeros(len(x))
    for token, value in probs.items():
        p[int(token)] = value
    assert abs(p.sum() - 1) < 2e-3, p.sum()  # llama.cpp adds up 262,144 of them in float32
    some = p > 0
    kls.append(float((p[some] * (np.log(p[some]) - ours[some])).sum()))
    top += int(p.argmax() == ours.argmax())
kls = np.array(kls)
print(f"{len(kls)} positions: KL mean {kls.mean():.2e}, largest {kls.max():.2e}, top-1 agreement {top}/{len(kls)}")
sys.exit(0 if kls.mean() <= float(sys.argv[3]) else f"mean KL {kls.mean():.3e} is above {sys.argv[3]}")
