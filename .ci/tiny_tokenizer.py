# A tokenizer of 96 tokens for the recorded bitsandbytes folders, which have none: one for each printable character.
#   tiny_tokenizer.py FOLDER-WITH-A-BPE-TOKENIZER FOLDER...
import json
import sys

t = json.load(open(sys.argv[1] + "/tokenizer.json"))
tokens = [chr(c) for c in range(33, 126)] + ["\u0120", "th"]
t["model"]["vocab"] = {c: i for i, c in enumerate(tokens)}
t["model"]["merges"] = [["t", "h"]]
end = {"id": 95, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
t["added_tokens"] = [end]
t["post_processor"] = None
for folder in sys.argv[2:]:
    json.dump(t, open(folder + "/tokenizer.json", "w"))
    json.dump({"eos_token": end["content"], "tokenizer_class": "PreTrainedTokenizerFast"}, open(folder + "/tokenizer_config.json", "w"))
