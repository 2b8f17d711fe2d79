"""Reads GGUF files with the gguf package, every tensor decoded: readable.py FILE..."""
import sys

import gguf
import numpy as np

for path in sys.argv[1:]:
    reader = gguf.GGUFReader(path)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(values).all(), (path, tensor.name)
    print(f"{path}: {len(reader.fields)} fields, {len(reader.tensors)} tensors read by gguf")
