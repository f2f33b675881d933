"""Weights of few bits: how they are rounded, and the safetensors file that holds them packed."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hfcompress.errors import ModelError
from hfcompress.files import write_bytes

FORMAT = 1
KEY = "hfcompress"  # of the file's metadata; its value is JSON
CODES, SCALES = ".codes", ".scales"
CODES_AT_ONCE = 1 << 20  # unpacked, each bit takes a byte for a moment


@dataclass(frozen=True)
class Codec:
    """How a matrix is stored in few bits: integers without a sign, and a scale for each channel or group.

    `truncation` is fixed point: whole multiples of one step, from -(2^(bits-1) - 1) to 2^(bits-1) - 1 of them, each
    weight rounded to the nearest; the step is the least half-precision number that reaches the largest magnitude.
    `sign` keeps one bit: W is alpha sign(W) with alpha = mean |W|, which has the least squared error (Rastegari et al.,
    XNOR-Net, ECCV 2016, equation 6); 0 counts as positive.

    Attributes:
        method: `truncation` or `sign`.
        bits: Bits of a weight; 1 for `sign`.
        group_size: Neighbouring weights of a row that share a scale; None for a whole row, which is an output channel
            of a linear layer, or a token of an embedding. The last group of a row may be smaller.
    """

    method: str
    bits: int
    group_size: int | None = None

    @property
    def offset(self) -> int:
        """The integer that stands for 0 in `truncation`."""
        return 1 << (self.bits - 1)

    def groups(self, inputs: int) -> int:
        """Scales of a row."""
        return math.ceil(inputs / self.group_size) if self.group_size else 1


def encode(weight: Tensor, codec: Codec) -> tuple[Tensor, Tensor]:
    """Round a matrix.

    Args:
        weight: Shape `(outputs, inputs)`.
        codec: How.

    Returns:
        Integers, uint8 of the same shape, and scales, fp16 of shape `(outputs, groups)`.

    Raises:
        ModelError: A weight is not finite, or too large for a scale in half precision.
    """
    values = weight.detach().float()
    outputs, inputs = values.shape
    groups = codec.groups(inputs)
    size = codec.group_size or inputs
    padded = torch.nn.functional.pad(values, (0, groups * size - inputs)).view(outputs, groups, size)
    if codec.method == "sign":
        counts = torch.full((groups,), size, dtype=torch.float32)
        counts[-1] -= groups * size - inputs
        scales = (padded.abs().sum(2) / counts.to(values.device)).half()
        codes = (values >= 0).to(torch.uint8)
    else:
        scales = _at_least(padded.abs().amax(2) / (codec.offset - 1))
        steps = torch.where(scales == 0, 1, scales.float())
        rounded = (padded / steps[:, :, None]).round().clamp(1 - codec.offset, codec.offset - 1)
        codes = (rounded.view(outputs, -1)[:, :inputs] + codec.offset).to(torch.uint8)
    if not torch.isfinite(scales).all():
        raise ModelError(
            "A weight cannot be stored in few bits",
            value=f"largest magnitude {float(values.abs().max()):g}",
            expected="finite weights, with scales that half precision holds (up to 65504)",
            remedy="look for NaN, infinity or runaway weights in the checkpoint",
        )
    return codes, scales


def decode(codes: Tensor, scales: Tensor, codec: Codec) -> Tensor:
    """The matrix in fp32 that integers and scales stand for; one product a weight, so the same on every machine."""
    whole = 2 * codes.float() - 1 if codec.method == "sign" else codes.float() - codec.offset
    spread = scales.float().repeat_interleave(codec.group_size or codes.shape[1], dim=1)
    return whole * spread[:, : codes.shape[1]]


def rounded(weight: Tensor, codec: Codec) -> Tensor:
    """A matrix as it comes back from its file, in the type that it has."""
    return decode(*encode(weight, codec), codec).to(weight.dtype)


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Lay integers end to end, the lowest bit first, in bytes whose lowest bit comes first.

    Args:
        codes: Integers below 2^bits, uint8 of shape `(count,)`.
        bits: Bits of each, 1 to 8.

    Returns:
        uint8 of shape `(ceil(count * bits / 8),)`; what is left of the last byte is 0.
    """
    parts = [
        np.packbits(
            np.unpackbits(codes[start : start + CODES_AT_ONCE, None], axis=1, count=bits, bitorder="little"),
            bitorder="little",
        )
        for start in range(0, len(codes), CODES_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The integers that `pack_bits` has laid end to end.

    Args:
        packed: uint8 of shape `(ceil(count * bits / 8),)`.
        bits: Bits of each integer.
        count: How many there are.

    Returns:
        uint8 of shape `(count,)`.
    """
    codes = np.empty(count, np.uint8)
    for start in range(0, count, CODES_AT_ONCE):
        some = min(CODES_AT_ONCE, count - start)
        first = start * bits // 8
        piece = packed[first : first + math.ceil(some * bits / 8)]
        one_bit_each = np.unpackbits(piece, count=some * bits, bitorder="little").reshape(some, bits)
        codes[start : start + some] = np.packbits(one_bit_each, axis=1, bitorder="little")[:, 0]
    return codes


def write_packed(path: Path, state: Mapping[str, Tensor], packed: Collection[str], codec: Codec) -> Path:
    """Write a state dict with some of its matrices in few bits, and the rest as it is.

    A packed matrix `NAME` is stored as `NAME.codes` (uint8, what `pack_bits` returns) and `NAME.scales` (fp16). The
    metadata says how, with the shape of each, so that the file stands for itself.

    Args:
        path: The file.
        state: Names and tensors.
        packed: Names of the matrices to pack.
        codec: How.

    Raises:
        ModelError: A weight is not finite.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in packed:
            codes, scales = encode(tensor, codec)
            tensors[name + CODES] = torch.from_numpy(pack_bits(codes.cpu().numpy().reshape(-1), codec.bits))
            tensors[name + SCALES] = scales.cpu()
        else:
            tensors[name] = tensor.detach().cpu().clone().contiguous()
    record = {"format": FORMAT, "codec": asdict(codec), "shapes": {name: list(state[name].shape) for name in packed}}
    return write_bytes(path, save(tensors, {"format": "pt", KEY: json.dumps(record, sort_keys=True)}))


def read_packed(path: Path) -> dict[str, Tensor]:
    """The state dict in a packed file, with every matrix dequantized to fp32.

    Raises:
        ModelError: It is no packed file, damaged, or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if record is None or record["format"] != FORMAT:
            raise ValueError("no packed weights of this format")
        codec = Codec(**record["codec"])
        matrices = {name: _take(tensors, name, shape, codec) for name, shape in record["shapes"].items()}
        return tensors | matrices
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "The file with packed weights cannot be read",
            value=f"{path} ({error})",
            expected=f"a safetensors file that hfcompress packed, of format {FORMAT}",
            remedy="copy the file again, or use the version of hfcompress that wrote it",
        ) from error


def _take(tensors: dict[str, Tensor], name: str, shape: Any, codec: Codec) -> Tensor:
    """Take a packed matrix out of the tensors of a file, and dequantize it."""
    codes, scales = tensors.pop(name + CODES), tensors.pop(name + SCALES)
    outputs, inputs = shape
    wanted = (math.ceil(outputs * inputs * codec.bits / 8),), (outputs, codec.groups(inputs))
    if (tuple(codes.shape), tuple(scales.shape)) != wanted:
        raise ValueError(f"{name} has codes and scales of shapes {tuple(codes.shape)} and {tuple(scales.shape)}")
    unpacked = unpack_bits(codes.numpy(), codec.bits, outputs * inputs).reshape(outputs, inputs)
    return decode(torch.from_numpy(unpacked), scales, codec)


def _at_least(values: Tensor) -> Tensor:
    """The least numbers in half precision that are not below these, which are 0 or more."""
    near = values.half()
    above = (near.view(torch.int16) + 1).view(torch.float16)  # the next one: bits of positive numbers are in order
    return torch.where(near.float() < values, above, near)
