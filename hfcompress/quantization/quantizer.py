"""RankerQuantizer: export and quantize a cross-encoder without a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimum.quantization_base import OptimumQuantizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import OutputError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.graph_files import record_external_data
from hfcompress.models.load import load_model
from hfcompress.models.size import ModelSize
from hfcompress.models.surgery import current_plan
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.quantization.artifacts import check_configs, export_memory, have_graphs, write_graphs
from hfcompress.quantization.config import QuantizationConfig, config_for
from hfcompress.rankers.base import Pair
from hfcompress.rankers.load import activation_name, ranking_tokenizer
from hfcompress.utils.device import CPU, torch_device
from hfcompress.utils.files import replaced_folder
from hfcompress.utils.machine import limited_torch_threads, versions
from hfcompress.utils.memory import require_memory


class RankerQuantizer(OptimumQuantizer):
    """Exports and quantizes a cross-encoder, pruned or not.

    Args:
        model: The cross-encoder in fp32, from `hfcompress.load_model`, which also reads the activation in the files of
            sentence-transformers.
        tokenizer: Its tokenizer, from `hfcompress.models.load.load_tokenizer`, which reads the prompts there;
            `model_max_length` is the maximum input length.
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
            max_length: Maximum input length in tokens; by default the tokenizer's.

        Raises:
            ModelError: There is no such model, it does not output a single score, or it has fewer positions.
            PlanError: The plan of a pruned model is damaged or of another format.
        """
        name = str(model_or_path)
        model = load_model(name, dtype="float32")
        return cls(model, ranking_tokenizer(name, model.config, max_length))

    @limited_torch_threads()
    def quantize(
        self,
        save_dir: str | Path,
        config: QuantizationConfig | Sequence[QuantizationConfig] | None = None,
        calibration_pairs: Sequence[Pair] | None = None,
        first_token: bool = True,
        progress: bool = True,
    ) -> list[Path]:
        """Write the checkpoint with its fp32 graphs and quantized artifacts, in the layout of a run's repository.

        Args:
            save_dir: New or empty folder to write, which `load_ranker` opens.
            config: Config of each artifact, at most one for each file. The default is dynamic int8 for this CPU.
            calibration_pairs: Pairs of query and document like those to be ranked. Static int8 requires some, and mixed
                precision requires several documents of each query.
            first_token: Compute the last layer for the first token only, if the model's head reads nothing else.
            progress: Show a progress bar.

        Returns:
            Paths of the int8 graphs, those for ONNX Runtime first, and of packed weights.

        Raises:
            DataError: There are no pairs for static int8, or a pair is not two texts.
            DeviceError: The export cannot fit into memory.
            MissingExtraError: OpenVINO is not installed, and a config requires it.
            ModelError: The scores of an export differ from those of PyTorch.
            OutputError: The folder is not empty.
            RecipeError: Two configs are for the same file.
        """
        configs = [config] if isinstance(config, QuantizationConfig) else list(config or [config_for()])
        pairs = list(calibration_pairs or [])
        check_configs(configs, pairs)
        if have_graphs(configs):
            require_memory(export_memory(ModelSize.of(self.model.config)), torch_device(CPU))
        folder = Path(save_dir).absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(
                "The output folder is not empty",
                value=str(save_dir),
                expected="a new or empty folder",
                remedy="name another folder",
            )
        with replaced_folder(folder) as temporary:
            written = write_quantized(
                temporary,
                self.model,
                self.tokenizer,
                activation=activation_name(self.model.config),
                configs=configs,
                pairs=pairs,
                first_token=first_token,
                progress=progress,
            )
        return [folder / path for path in written]


def write_quantized(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    activation: str,
    configs: Sequence[QuantizationConfig],
    pairs: Sequence[Pair],
    ranking_pairs: Sequence[Pair] = (),
    recipe: dict[str, Any] | None = None,
    first_token: bool = True,
    progress: bool = True,
) -> dict[str, QuantizationConfig]:
    """Write a checkpoint with its graphs and quantized artifacts, and `hfcompress_config.json` with their settings.

    Args:
        folder: Folder to write into.
        model: The cross-encoder.
        tokenizer: Its tokenizer, with `model_max_length` set.
        activation: Full name of the activation that loaders apply to the score.
        configs: As for `write_graphs`.
        pairs: As for `write_graphs`.
        ranking_pairs: As for `write_graphs`.
        recipe: Recipe of the run as plain data, if there is one.
        first_token: As for `write_graphs`.
        progress: As for `write_graphs`.

    Returns:
        Configs of the int8 graphs and packed files by path in the folder.
    """
    save_checkpoint(folder, model, tokenizer, activation, tokenizer.model_max_length)
    written = write_graphs(
        folder,
        model,
        tokenizer,
        configs,
        pairs=pairs,
        ranking_pairs=ranking_pairs,
        first_token=first_token,
        progress=progress,
    )
    record_external_data(folder)
    plan = current_plan(model)
    RankerCompressionConfig(
        recipe=recipe,
        plan=None if plan.is_full else plan.to_dict(),
        quantization={path: config.to_dict() for path, config in written.items()},
        versions=versions(),
    ).save_pretrained(folder)
    return written
