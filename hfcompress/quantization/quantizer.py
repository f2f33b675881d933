"""RankerQuantizer: a cross-encoder in, the repository with its int8 graphs out; no recipe needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optimum.quantization_base import OptimumQuantizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.checkpoint import save_checkpoint
from hfcompress.errors import OutputError
from hfcompress.files import replaced_folder
from hfcompress.machine import versions
from hfcompress.models import load_model
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.quantization.artifacts import check_configs, write_graphs
from hfcompress.quantization.config import QuantizationConfig, config_for
from hfcompress.rankers.base import Pair
from hfcompress.rankers.load import activation_name, ranking_tokenizer
from hfcompress.surgery import current_plan


class RankerQuantizer(OptimumQuantizer):
    """Exports a cross-encoder, pruned or not, and quantizes it to int8.

    Args:
        model: The cross-encoder in fp32.
        tokenizer: Its tokenizer; `model_max_length` is the longest input.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, model_or_path: str | Path, max_length: int | None = None) -> RankerQuantizer:
        """Load a cross-encoder.

        Args:
            model_or_path: A local folder, a Hub id, or `package:NAME/FOLDER`.
            max_length: Longest input in tokens; by default the tokenizer's.

        Raises:
            ModelError: There is no such model, it does not give one score, or its positions are fewer.
            PlanError: It is pruned, and its record of pruning is damaged or of another format.
        """
        name = str(model_or_path)
        model = load_model(name, dtype="float32")
        return cls(model, ranking_tokenizer(name, model.config, max_length))  # type: ignore[arg-type]

    def quantize(
        self,
        save_dir: str | Path,
        config: QuantizationConfig | Sequence[QuantizationConfig] | None = None,
        calibration_pairs: Sequence[Pair] | None = None,
        first_token: bool = True,
        progress: bool = True,
    ) -> list[Path]:
        """Write the checkpoint, its fp32 graphs and its int8 graphs, in the layout that every run writes.

        Args:
            save_dir: The folder to write, new or empty; `load_ranker` opens it.
            config: Settings of one or more artefacts, each for a file of its own; where left out, dynamic int8 for this
                CPU.
            calibration_pairs: Texts of queries and documents like those to be ranked; static int8 needs some, and mixed
                precision needs several documents of each query.
            first_token: Compute the last layer for the first token only, where the model's head reads nothing else.
            progress: Show a progress bar.

        Returns:
            Path of every int8 graph, those for ONNX Runtime first, then of packed weights.

        Raises:
            DataError: Static int8 without pairs, or pairs that are none.
            MissingExtraError: OpenVINO is asked for and not installed.
            ModelError: An export gives other scores than PyTorch.
            OutputError: The folder holds something.
            RecipeError: Two settings are for one file.
        """
        configs = [config] if isinstance(config, QuantizationConfig) else list(config or [config_for()])
        pairs = list(calibration_pairs or [])
        check_configs(configs, pairs)
        folder = Path(save_dir).absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(
                "The output folder holds something",
                value=str(save_dir),
                expected="a new or empty folder",
                remedy="name another folder",
            )
        with replaced_folder(folder) as aside:
            activation = activation_name(self.model.config)
            written = write_quantized(
                aside, self.model, self.tokenizer, activation, configs, pairs, lambda line: None, progress, first_token
            )
        return [folder / path for path in written]


def write_quantized(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    activation: str,
    configs: Sequence[QuantizationConfig],
    pairs: Sequence[Pair],
    say: Callable[[str], None],
    progress: bool = True,
    first_token: bool = True,
    recipe: dict[str, Any] | None = None,
    ranking_pairs: Sequence[Pair] = (),
) -> dict[str, QuantizationConfig]:
    """Write a checkpoint with all its graphs, and `hfcompress_config.json` about them.

    Args:
        folder: Where to write.
        model: The cross-encoder.
        tokenizer: Its tokenizer, with `model_max_length` set.
        activation: Full name of the activation that loaders apply to the score.
        configs: The int8 graphs to make.
        pairs: Texts for calibration, and for the check of the exports.
        say: Called with a line for the user.
        progress: Show a progress bar.
        first_token: As for `write_graphs`.
        recipe: The recipe that this is part of, as plain data.
        ranking_pairs: As for `write_graphs`.

    Returns:
        Path in the folder of every int8 graph and packed file, with its config.
    """
    save_checkpoint(folder, model, tokenizer, activation, tokenizer.model_max_length)
    written = write_graphs(folder, model, tokenizer, configs, pairs, say, progress, first_token, ranking_pairs)
    plan = current_plan(model)
    RankerCompressionConfig(
        recipe=recipe,
        plan=None if plan.is_full else plan.to_dict(),
        quantization={path: config.to_dict() for path, config in written.items()},
        versions=versions(),
    ).save_pretrained(folder)
    return written
