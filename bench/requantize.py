"""Writes a GGUF file again with its matrices in another type: requantize.py FROM TO TYPE, where TYPE is Q8_0, Q4_K or Q6_K.

Rows that are no whole blocks of 256 get the type that llama.cpp's own tool falls back to. Q4_K and Q6_K are rounded in the
simplest way: each group between its extremes, without a search, which costs digits and no time."""

import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType, GGUFWriter, quants

FALLBACK = {Type.Q4_K: Type.Q5_0, Type.Q6_K: Type.Q8_0, Type.Q8_0: Type.Q8_0}


def halves(x):
    return x.astype("<f2").view(np.uint8)


def positive(x):
    """What may be divided by."""
    return np.where(x > 0, x, 1)


def q4_k(x):
    """Blocks of 256: the scale and the step of 8 groups, in 6 bits each, and codes of 4 bits."""
    x = x.reshape(-1, 8, 32)
    least = np.maximum(-x.min(axis=2), 0)
    scale = (x.max(axis=2) + least) / 15
    both = []
    for factors in (scale, least):
        unit = (factors.max(axis=1, keepdims=True) / 63).astype("<f2").astype(np.float32)
        both.append((unit, np.clip(np.rint(factors / positive(unit)), 0, 63).astype(np.uint8)))
    (d, scales), (m, steps) = both
    own = (d * scales)[:, :, None]
    codes = np.clip(np.rint((x + (m * steps)[:, :, None]) / positive(own)), 0, 15).astype(np.uint8)
    low = np.concatenate([scales[:, :4] | scales[:, 4:] >> 4 << 6, steps[:, :4] | steps[:, 4:] >> 4 << 6], axis=1)
    factors = np.concatenate([low, scales[:, 4:] & 15 | (steps[:, 4:] & 15) << 4], axis=1)
    pairs = codes.reshape(-1, 4, 2, 32)
    return np.concatenate([halves(d), halves(m), factors, (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)], axis=1)


def q6_k(x):
    """Blocks of 256: the scale of 16 groups in 8 bits each, and codes of 6 bits."""
    x = x.reshape(-1, 16, 16)
    scale = np.abs(x).max(axis=2) / 31
    d = (scale.max(axis=1, keepdims=True) / 127).astype("<f2").astype(np.float32)
    scales = np.clip(np.rint(scale / positive(d)), 0, 127)
    own = (d * scales)[:, :, None]
    codes = (np.clip(np.rint(x / positive(own)), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = codes & 15, codes >> 4
    low = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, 128)
    high = (high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6).reshape(-1, 64)
    return np.concatenate([low, high, scales.astype(np.int8).view(np.uint8), halves(d)], axis=1)


OWN = {Type.Q4_K: q4_k, Type.Q6_K: q6_k}


def packed(x, wanted):
    if wanted in OWN and x.shape[1] % 256 == 0:
        return wanted, OWN[wanted](x).reshape(x.shape[0], -1)
    return FALLBACK[wanted], quants.quantize(x, FALLBACK[wanted])


def main(source, target, name):
    reader, wanted = GGUFReader(source), Type[name]
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, architecture)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(key, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        # The embedding stays what it is, Q8_0, as the tool leaves a head.
        if len(tensor.shape) == 2 and tensor.name != "token_embd.weight":
            numbers = quants.dequantize(tensor.data, tensor.tensor_type)
            kind, data = packed(numbers, wanted)
            writer.add_tensor(tensor.name, data, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(*sys.argv[1:])
