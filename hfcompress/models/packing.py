"""Low-bit weight-only quantization: codes and scales of a matrix, and the safetensors file that stores them packed."""

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
from hfcompress.utils.files import write_bytes
from hfcompress.utils.json_files import require_content

FORMAT = 1
KEY = "hfcompress"  # of the file's metadata; its value is JSON
CODES, SCALES = ".codes", ".scales"
CODES_AT_ONCE = 1 << 20  # bounds memory: each bit is unpacked to a byte


@dataclass(frozen=True)
class Codec:
    """Low-bit format of a matrix: unsigned integer codes, and a scale per row or per group.

    `round` is round-to-nearest in fixed point: multiples of one step from -(2^(bits-1) - 1) to 2^(bits-1) - 1. The step
    is the smallest fp16 number with which the largest magnitude is reached. `sign` keeps one bit: W is approximated by
    alpha sign(W) with alpha = mean |W|, which has the least squared error (Rastegari et al., XNOR-Net, ECCV 2016,
    equation 6); 0 counts as positive.

    Attributes:
        method: `round` or `sign`; `truncation`, the name of `round` in its source literature, is an alias.
        bits: Bits per weight; 1 for `sign`.
        group_size: Number of neighbouring weights in a row that share a scale. None for one scale per row, i.e. per
            output channel of a linear layer or per token of an embedding. The last group of a row may be smaller.
    """

    method: str
    bits: int
    group_size: int | None = None

    def __post_init__(self) -> None:
        if self.method == "truncation":  # in files of earlier versions too
            object.__setattr__(self, "method", "round")

    @property
    def offset(self) -> int:
        """The code of 0 in `round`."""
        return 1 << (self.bits - 1)

    def groups(self, inputs: int) -> int:
        """Number of scales per row."""
        return math.ceil(inputs / self.group_size) if self.group_size else 1


def encode(weight: Tensor, codec: Codec) -> tuple[Tensor, Tensor]:
    """Quantize a matrix.

    Args:
        weight: Shape `(outputs, inputs)`.
        codec: Low-bit format.

    Returns:
        Codes, uint8 of the same shape, and scales, fp16 of shape `(outputs, groups)`.

    Raises:
        ModelError: A weight is not finite, or too large for an fp16 scale.
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
        scales = _half_at_least(padded.abs().amax(2) / (codec.offset - 1))
        steps = torch.where(scales == 0, 1, scales.float())
        rounded = (padded / steps[:, :, None]).round().clamp(1 - codec.offset, codec.offset - 1)
        codes = (rounded.view(outputs, -1)[:, :inputs] + codec.offset).to(torch.uint8)
    if not torch.isfinite(scales).all():
        raise ModelError(
            "A weight has no low-bit form",
            value=f"largest magnitude {float(values.abs().max()):g}",
            expected="finite weights, with scales that fp16 can represent (up to 65504)",
            remedy="look for NaN, infinity or runaway weights in the checkpoint",
        )
    return codes, scales


def decode(codes: Tensor, scales: Tensor, codec: Codec) -> Tensor:
    """Dequantize codes and scales to fp32; one product per weight, so the result is the same on every machine."""
    whole = 2 * codes.float() - 1 if codec.method == "sign" else codes.float() - codec.offset
    scale = scales.float().repeat_interleave(codec.group_size or codes.shape[1], dim=1)
    return whole * scale[:, : codes.shape[1]]


def round_trip(weight: Tensor, codec: Codec) -> Tensor:
    """Quantize and dequantize a matrix, in its own dtype: the weights that a packed file gives back."""
    return decode(*encode(weight, codec), codec).to(weight.dtype)


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack codes without gaps, in little-endian bit order.

    Args:
        codes: Integers below 2^bits, uint8 of shape `(count,)`.
        bits: Bits per code, 1 to 8.

    Returns:
        uint8 of shape `(ceil(count * bits / 8),)`; unused bits of the last byte are 0.
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
    """Unpack codes that `pack_bits` has packed.

    Args:
        packed: uint8 of shape `(ceil(count * bits / 8),)`.
        bits: Bits per code.
        count: Number of codes.

    Returns:
        uint8 of shape `(count,)`.
    """
    codes = np.empty(count, np.uint8)
    for start in range(0, count, CODES_AT_ONCE):
        some = min(CODES_AT_ONCE, count - start)
        first = start * bits // 8
        piece = packed[first : first + math.ceil(some * bits / 8)]
        unpacked = np.unpackbits(piece, count=some * bits, bitorder="little").reshape(some, bits)
        codes[start : start + some] = np.packbits(unpacked, axis=1, bitorder="little")[:, 0]
    return codes


def write_packed(path: Path, state: Mapping[str, Tensor], packed: Collection[str], codec: Codec) -> Path:
    """Write a state dict with some of its matrices in packed low-bit form.

    A packed matrix `NAME` is stored as `NAME.codes` (uint8, as returned by `pack_bits`) and `NAME.scales` (fp16). The
    metadata holds the codec and the shapes, so the file is self-contained. All other tensors are stored unchanged.

    Args:
        path: The file.
        state: State dict.
        packed: Names of the matrices to pack.
        codec: Low-bit format.

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
    """Read the state dict of a packed file, with every packed matrix dequantized to fp32.

    Raises:
        ModelError: The file is not a packed file, is damaged, or has another format.
    """
    require_content(path)
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
            expected=f"a safetensors file packed by hfcompress, of format {FORMAT}",
            remedy="copy the file again, or use the version of hfcompress that wrote it",
        ) from error


def rescale_packed(path: Path, layer: str, scale: float, shift: float) -> None:
    """Scale and shift, in place, the output of a linear layer that a packed file stores as it is.

    Args:
        path: The file.
        layer: Path of the layer in the model; it gets a bias if it has none.
        scale: Factor of its output.
        shift: What is added to it.

    Raises:
        ModelError: The file is not a packed file, or is damaged.
    """
    read_packed(path)  # which reports what is wrong with it
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weight, bias = (f"{layer}.{name}" for name in ("weight", "bias"))
    before = tensors.get(bias, torch.zeros_like(tensors[weight][:, 0]))
    tensors[bias] = (scale * before.double() + shift).to(before.dtype)
    tensors[weight] = (scale * tensors[weight].double()).to(tensors[weight].dtype)
    write_bytes(path, save(tensors, metadata))


def _take(tensors: dict[str, Tensor], name: str, shape: Any, codec: Codec) -> Tensor:
    """Remove the codes and scales of a matrix from the tensors of a file, and dequantize them."""
    codes, scales = tensors.pop(name + CODES), tensors.pop(name + SCALES)
    outputs, inputs = shape
    wanted = (math.ceil(outputs * inputs * codec.bits / 8),), (outputs, codec.groups(inputs))
    if (tuple(codes.shape), tuple(scales.shape)) != wanted:
        raise ValueError(f"{name} has codes and scales of shapes {tuple(codes.shape)} and {tuple(scales.shape)}")
    unpacked = unpack_bits(codes.numpy(), codec.bits, outputs * inputs).reshape(outputs, inputs)
    return decode(torch.from_numpy(unpacked), scales, codec)


def _half_at_least(values: Tensor) -> Tensor:
    """The smallest fp16 numbers that are not below `values`, which are 0 or more."""
    near = values.half()
    above = (near.view(torch.int16) + 1).view(torch.float16)  # the next number: bit patterns of positive ones ascend
    return torch.where(near.float() < values, above, near)
