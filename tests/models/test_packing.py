"""Packed weights: bits round-trip, errors stay within a step, and damaged files are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hfcompress.errors import ModelError
from hfcompress.models import packing
from hfcompress.models.packing import (
    Codec,
    decode,
    encode,
    pack_bits,
    read_packed,
    round_trip,
    unpack_bits,
    write_packed,
)

CODECS = [Codec("round", bits, group) for bits in range(4, 9) for group in (None, 1, 7, 32, 100)]
CODECS += [Codec("sign", 1, group) for group in (None, 7, 32)]


def matrix(seed: int, outputs: int = 9, inputs: int = 45) -> torch.Tensor:
    """Rows of very different magnitudes, one of zeros, and a few more zeros."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(outputs, inputs, generator=generator) * torch.logspace(-7, 3, outputs)[:, None]
    values[outputs // 2] = 0
    values[:, 2] = 0
    return values


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_bits_round_trip(bits: int, count: int) -> None:
    codes = np.random.default_rng(count).integers(0, 2**bits, count, dtype=np.uint8)
    packed = pack_bits(codes, bits)
    assert packed.dtype == np.uint8 and packed.shape == (math.ceil(count * bits / 8),)
    np.testing.assert_array_equal(unpack_bits(packed, bits, count), codes)


@pytest.mark.parametrize("bits", [1, 3, 5, 8])
def test_bits_do_not_depend_on_how_many_are_unpacked_at_once(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, 203, dtype=np.uint8)
    whole = pack_bits(codes, bits)
    monkeypatch.setattr(packing, "CODES_AT_ONCE", 16)
    np.testing.assert_array_equal(pack_bits(codes, bits), whole)
    np.testing.assert_array_equal(unpack_bits(whole, bits, 203), codes)


def test_the_layout_of_bits_is_fixed() -> None:
    # 3 bits each, lowest bit first: 1 2 3 -> 100 010 110, split into bytes in little-endian bit order.
    assert pack_bits(np.array([1, 2, 3], np.uint8), 3).tolist() == [0b11010001, 0]
    assert pack_bits(np.array([1, 0, 1, 1], np.uint8), 1).tolist() == [0b1101]
    assert pack_bits(np.array([0x3, 0xA], np.uint8), 4).tolist() == [0xA3]


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_rounding_errors_stay_within_half_a_step(codec: Codec, seed: int) -> None:
    weight = matrix(seed)
    codes, scales = encode(weight, codec)
    assert codes.dtype == torch.uint8 and codes.shape == weight.shape and int(codes.max()) < 2**codec.bits
    assert scales.dtype == torch.float16 and scales.shape == (9, codec.groups(45))
    back = decode(codes, scales, codec)
    size = codec.group_size or 45
    for row in range(9):
        for group in range(codec.groups(45)):
            part = slice(group * size, (group + 1) * size)
            exact, found = weight[row, part], back[row, part]
            if codec.method == "sign":
                alpha = exact.abs().mean()
                assert torch.equal(found.abs(), alpha.half().float().expand_as(found))
                assert torch.equal(found >= 0, exact >= 0) or alpha.half() == 0
            else:
                largest = float(exact.abs().max())
                step = float(scales[row, group])
                assert (exact - found).abs().max() <= step / 2 * 1.0001
                tiny = 2.0**-24  # smallest fp16 number
                assert step <= max(largest / (2 ** (codec.bits - 1) - 1) * (1 + 2**-9), tiny) + tiny
    fine = (scales.float().amin(1) > 2.0**-14) | (weight == 0).all(1)  # where fp16 is not subnormal
    assert torch.equal(round_trip(back, codec)[fine], back[fine])  # rounding is idempotent


def test_more_bits_and_smaller_groups_have_smaller_errors() -> None:
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))

    def error(*settings: object) -> float:
        return float((round_trip(weight, Codec(*settings)) - weight).square().mean())

    by_bits = [error("round", bits) for bits in range(4, 9)]
    by_group = [error("round", 4, group) for group in (128, 32, 8)]
    assert by_bits == sorted(by_bits, reverse=True) and by_group == sorted(by_group, reverse=True)
    assert error("round", 4, 128) == by_bits[0]
    # The mean magnitude as scale has the least squared error (XNOR-Net, equation 6).
    alpha = weight.abs().mean(1, keepdim=True)
    least = min(float((factor * alpha * weight.sign() - weight).square().mean()) for factor in (0.9, 1, 1.1))
    assert error("sign", 1) == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize("codec", CODECS[::3], ids=str)
def test_a_file_is_exactly_as_large_as_its_bits(codec: Codec, tmp_path: Path) -> None:
    state = {"a": matrix(0), "b": matrix(1, 4, 3), "c": torch.randn(5), "d": torch.randn(2, 2).bfloat16()}
    path = write_packed(tmp_path / "packed" / "model.safetensors", state, ["a", "b"], codec)
    bits = sum(math.ceil(state[name].numel() * codec.bits / 8) for name in "ab")
    scales = 2 * sum(len(state[name]) * codec.groups(state[name].shape[1]) for name in "ab")
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size == 8 + header + bits + scales + 5 * 4 + 4 * 2
    back = read_packed(path)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], round_trip(tensor, codec) if name in "ab" else tensor)
        assert back[name].dtype == tensor.dtype
    with safe_open(path, "pt") as file:  # the file is self-contained
        record = json.loads(file.metadata()["hfcompress"])
    assert record["codec"] == {"method": codec.method, "bits": codec.bits, "group_size": codec.group_size}
    assert record["shapes"] == {"a": [9, 45], "b": [4, 3]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e8])
def test_weights_without_a_scale_are_refused(value: float) -> None:
    weight = matrix(0)
    weight[2, 1] = value
    with pytest.raises(ModelError, match="has no low-bit form"):
        encode(weight, Codec("round", 4))


def test_other_and_damaged_files_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(2)}, plain)
    path = write_packed(tmp_path / "model.safetensors", {"a": matrix(0)}, ["a"], Codec("round", 4))
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("a.codes", "a.scales")}
    record = json.loads(metadata["hfcompress"])
    wrong = {
        "format": ({**record, "format": 2}, tensors),
        "codec": ({**record, "codec": {"bits": 4}}, tensors),
        "shape": ({**record, "shapes": {"a": [9, 46]}}, tensors),
        "names": ({**record, "shapes": {"b": [9, 45]}}, tensors),
        "codes": (record, {**tensors, "a.codes": tensors["a.codes"][1:]}),
    }
    for name, (changed, content) in wrong.items():
        save_file(content, tmp_path / name, {"hfcompress": json.dumps(changed)})
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-1])
    for broken in (plain, *(tmp_path / name for name in (*wrong, "cut", "missing"))):
        with pytest.raises(ModelError, match=r"cannot be (read|used)") as caught:
            read_packed(broken)
        assert str(broken) in str(caught.value)
