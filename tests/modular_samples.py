"""Modular cross-encoders with random weights, made and saved by sentence-transformers itself."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import HIDDEN, pico_config
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from torch import nn
from transformers import AutoModel, PreTrainedTokenizerFast

WIDE = 24
# Family, pooling, bias of the dense layers, and whether there is a norm between them.
LAYOUTS: dict[str, tuple[str, str | tuple[str, ...], bool, bool]] = {
    "bert-cls-norm": ("bert", "cls", True, True),
    "bert-mean-norm-no-bias": ("bert", "mean", False, True),
    "bert-mean": ("bert", "mean", True, False),
    "modernbert-cls-norm-no-bias": ("modernbert", "cls", False, True),
    "modernbert-mean-norm": ("modernbert", "mean", True, True),
    "modernbert-cls": ("modernbert", "cls", True, False),
}


def head(pooling: str | tuple[str, ...], bias: bool, norm: bool, labels: int = 1) -> list[nn.Module]:
    """Pooling -> Dense -> (LayerNorm ->) Dropout -> Dense."""
    width = HIDDEN if isinstance(pooling, str) else HIDDEN * len(pooling)
    modules: list[nn.Module] = [
        Pooling(HIDDEN, pooling),
        Dense(width, WIDE, bias=bias, activation_function=nn.GELU()),
        *([LayerNorm(WIDE)] if norm else []),
        Dropout(0.1),
        Dense(WIDE, labels, bias=bias, activation_function=None, module_output_name="scores"),
    ]
    return modules


def write_modular(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    family: str = "bert",
    modules: list[nn.Module] | None = None,
    **settings: object,
) -> Path:
    """Save a cross-encoder with these modules behind its encoder.

    Args:
        folder: Folder to write.
        tokenizer: Its tokenizer.
        family: Family of the encoder.
        modules: The modules; made before the call, so seed the generator before them, too.
        settings: Arguments of `CrossEncoder`.
    """
    modules = modules or head("mean", bias=True, norm=True)
    torch.manual_seed(0)
    encoder = AutoModel.from_config(pico_config(family)).eval()
    with torch.no_grad():
        for name, parameter in [*encoder.named_parameters(), *nn.ModuleList(modules).named_parameters()]:
            if parameter.dim() == 2 and "embeddings" not in name:
                parameter.normal_(std=0.15)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    alone = folder.with_name(f"{folder.name}-encoder")
    encoder.save_pretrained(alone)
    names = [name for name in tokenizer.model_input_names if family == "bert" or name != "token_type_ids"]
    tokenizer.save_pretrained(alone)
    transformer = Transformer(str(alone))
    transformer.tokenizer.model_input_names = transformer.tokenizer.init_kwargs["model_input_names"] = names
    CrossEncoder(modules=[transformer, *modules], **settings).save(str(folder), create_model_card=False)
    return folder


def write_layout(folder: Path, tokenizer: PreTrainedTokenizerFast, layout: str) -> Path:
    """Save a cross-encoder of one of `LAYOUTS`."""
    family, *form = LAYOUTS[layout]
    return write_modular(folder, tokenizer, family, head(*form))
