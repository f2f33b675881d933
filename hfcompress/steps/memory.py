"""Memory that the steps of a run need, compared with what there is before it starts."""

from __future__ import annotations

from transformers import PretrainedConfig

from hfcompress.models.size import ModelSize
from hfcompress.pruning.memory import pruning_memory
from hfcompress.quantization.artifacts import export_memory, have_graphs
from hfcompress.recipe import PruneStep, Recipe
from hfcompress.steps.context import written
from hfcompress.training.memory import training_memory
from hfcompress.utils.device import CPU, torch_device
from hfcompress.utils.memory import require_memory


def check_memory(recipe: Recipe, config: PretrainedConfig) -> None:
    """Check that the steps of a run fit into memory, and warn where they may not.

    What a plan keeps of the encoder, and what a pruned vocabulary keeps of the embedding, is not known here: a run is
    refused for the rest of its student alone.

    Args:
        recipe: The recipe.
        config: Config of its teacher.

    Raises:
        DeviceError: A step cannot fit.
    """
    device, length = torch_device(recipe.device), recipe.teacher.max_length
    size = ModelSize.of(config)
    if training := recipe.teacher.train:
        documents = 1 + training.hard_negatives + training.random_negatives
        require_memory(
            training_memory("The teacher's training", size, training.optimization, documents, length), device
        )
    trained = exported = (size, size)
    if step := recipe.prune:
        if step.target or step.has_shares:
            require_memory(pruning_memory(size, step.importance, length, step.calibration_queries), device)
        # The first of several stages cuts the least, and leaves the vocabulary to the last.
        trained, exported = student_sizes(step.by_stage()[0], size), student_sizes(step, size)
    if recover := recipe.recover:
        teacher, (student, certain) = size if recover.features else None, trained
        require_memory(
            training_memory("Recovery", student, recover.optimization, recover.documents, length, teacher, certain),
            device,
        )
    if have_graphs(written(recipe.quantize.artifacts)):
        require_memory(export_memory(*exported), torch_device(CPU))


def student_sizes(step: PruneStep, size: ModelSize) -> tuple[ModelSize, ModelSize]:
    """The expected size of a pruned model, and the least that it can have, before its plan is known.

    Args:
        step: How to prune.
        size: The model before.
    """
    whole_vocabulary = step.vocabulary is None
    least = 0.0 if step.target or step.has_shares else 1.0
    return size.pruned(kept_share(step, size), whole_vocabulary), size.pruned(least, whole_vocabulary)


def kept_share(step: PruneStep, size: ModelSize) -> float:
    """Share of the encoder that a plan is expected to keep.

    A speed-up is taken to come from the encoder alone, and a latency, which is not known before it is measured, keeps
    everything.

    Args:
        step: How to prune.
        size: The model before.
    """
    if step.target_macs is not None:
        return step.target_macs
    if step.target_speedup is not None:
        return 1 / step.target_speedup
    if step.target_parameters is not None:
        other = size.parameters - size.encoder
        return min(1.0, max(0.0, (step.target_parameters * size.parameters - other) / size.encoder))
    layers = len(step.layers) / len(size.layers) if step.layers else 1.0
    return layers * max(1.0 if step.heads is None else step.heads, 1.0 if step.ffn is None else step.ffn)
