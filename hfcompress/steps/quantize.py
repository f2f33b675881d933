"""The step that exports and quantizes."""

from __future__ import annotations

from pathlib import Path

from hfcompress.data.score_text import record_score_text
from hfcompress.models import load_model, load_tokenizer
from hfcompress.quantization.config import config_from_recipe
from hfcompress.quantization.quantizer import write_quantized
from hfcompress.rankers.load import activation_name
from hfcompress.run_data import calibration_pairs, ranking_pairs
from hfcompress.steps.base import Run, installed


def quantize(current: Run, student: str, made_of: str) -> tuple[Path, str]:
    """Write the student with its fp32 and int8 graphs in the repository layout.

    Returns:
        The folder, and a fingerprint.
    """
    step = current.recipe.quantize
    wanted = [_artifact for _artifact in step.artifacts if installed(_artifact, current.workspace.say)]

    def work(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(student, dtype="float32"), load_tokenizer(student, current.max_length)
        record_score_text(model.config, current.recipe.data.score_text)
        write_quantized(
            folder,
            model,
            tokenizer,
            activation_name(model.config),
            [config_from_recipe(artifact) for artifact in wanted],
            calibration_pairs(current.data, step.calibration_pairs),
            current.workspace.say,
            current.progress,
            step.first_token,
            current.recipe.model_dump(mode="json"),
            ranking_pairs(current.data),
        )

    inputs = [step.model_dump(mode="json"), len(wanted), current.max_length, made_of]
    made = ", ".join(f"{config.runtime} {config.precision}" for config in map(config_from_recipe, wanted))
    return current.workspace.step("int8", inputs, work, f"export to {made or 'fp32 graphs'}")
