"""The step that exports and quantizes."""

from __future__ import annotations

from pathlib import Path

from hfcompress.data.score_text import record_score_text
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.quantization.quantizer import write_quantized
from hfcompress.rankers.load import activation_name
from hfcompress.steps.context import RunContext, written
from hfcompress.steps.inputs import calibration_pairs, ranking_pairs
from hfcompress.steps.workspace import StepFolder, StepModel


def quantize(context: RunContext, student: StepModel) -> StepFolder:
    """Write the student with its fp32 and int8 graphs in the repository layout."""
    step = context.recipe.quantize
    configs = written(step.artifacts)

    def work(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(student.name, dtype="float32"), load_tokenizer(student.name, context.max_length)
        record_score_text(model.config, context.recipe.data.score_text)
        write_quantized(
            folder,
            model,
            tokenizer,
            activation=activation_name(model.config),
            configs=configs,
            pairs=calibration_pairs(context.data, step.calibration_pairs),
            ranking_pairs=ranking_pairs(context.data),
            first_token=step.first_token,
            recipe=context.recipe.model_dump(mode="json"),
            progress=context.progress,
        )

    inputs = [step.model_dump(mode="json"), len(configs), context.max_length, student.fingerprint]
    made = ", ".join(f"{config.runtime} {config.precision}" for config in configs)
    return context.workspace.step("int8", inputs, work, f"export to {made or 'fp32 graphs'}")
