"""The estimate of a training's memory, against the tensors that a step makes."""

from __future__ import annotations

import pytest
import torch
from conftest import make_pico, random_inputs

from hfcompress.models.size import ModelSize
from hfcompress.recipe import Optimization
from hfcompress.training.fit import freeze
from hfcompress.training.memory import training_memory


@pytest.mark.parametrize("frozen", [-1, 0, 2])
def test_weights_gradients_and_moments_are_counted(frozen: int) -> None:
    model = make_pico(vocab_size=2000, max_position_embeddings=16).train()  # most of the embeddings are tokens
    freeze(model, frozen)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(**random_inputs(4, 9)).logits.sum().backward()
    optimizer.step()
    states = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    held = [*model.parameters(), *(parameter.grad for parameter in trained if parameter.grad is not None), *states]
    settings = Optimization(freeze_layers=frozen)
    estimate = training_memory("Recovery", ModelSize.of(model.config), settings, 8, 32)
    assert estimate.least == pytest.approx(sum(tensor.nbytes for tensor in held), rel=0.02)
    assert ("freeze the embeddings" in estimate.remedy) == (frozen < 0)


def test_what_the_estimate_depends_on() -> None:
    size = ModelSize.of(make_pico().config)

    def peak(documents: int = 8, length: int = 128, teacher: ModelSize | None = None, **settings: object) -> int:
        return training_memory("Recovery", size, Optimization(**settings), documents, length, teacher).peak

    usual = peak()
    assert peak(accumulation=4) < usual < peak(queries_per_batch=16)
    assert peak(documents=4) < usual < peak(length=256)
    assert usual < peak(r_drop=1.0, dropout=0.1)
    assert peak(teacher=size) > usual + size.weights
    whole = training_memory("Recovery", size, Optimization(accumulation=8), 8, 128)
    assert "accumulation" not in whole.remedy
