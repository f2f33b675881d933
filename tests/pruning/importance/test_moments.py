"""Second moments by hand, padding left out, and fits: ridge regression, and what it becomes at both ends."""

from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, make_pico, uneven_plan
from ranking_batches import batches_for, model_inputs
from torch import Tensor, nn
from transformers import BertTokenizerFast

from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.models.architectures import architecture_of, encoder_layers
from hfcompress.models.modeling_hfcompress import BiasOnly
from hfcompress.models.surgery import apply_plan
from hfcompress.pruning.importance.margins import margin_gradients
from hfcompress.pruning.importance.moments import Fit, Moments
from hfcompress.pruning.importance.obs import measure_moments


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Moments


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_moments_by_hand(constant: bool, weighted: bool) -> None:
    inputs = draw(20, 4)
    weights = draw(20, seed=1).square() if weighted else torch.ones(20)
    moments = Moments(4, constant)
    for part in (slice(0, 7), slice(7, 20)):
        moments.add(inputs[part], weights[part] if weighted else None)
    rows = [[*row, 1.0] if constant else row for row in inputs.tolist()]
    total = weights.sum().item()
    size = 4 + constant
    expected = torch.tensor(
        [
            [
                2 / total * sum(w * row[one] * row[other] for w, row in zip(weights.tolist(), rows, strict=True))
                for other in range(size)
            ]
            for one in range(size)
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(moments.matrix(), expected, rtol=1e-5, atol=1e-6)
    assert moments.tokens == 20 and moments.weight == pytest.approx(total)
    if constant:
        assert moments.matrix()[-1, -1].item() == pytest.approx(2)


def test_moments_of_nothing_are_zero() -> None:
    assert not Moments(3, True).matrix().any()


def padded(batch: dict[str, Tensor], more: int) -> dict[str, Tensor]:
    """The same pairs behind which there is more padding."""
    longer = {}
    for name, tensor in batch.items():
        pairs = name in ("input_ids", "attention_mask", "token_type_ids")
        longer[name] = nn.functional.pad(tensor, (0, more)) if pairs else tensor
    return longer


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_count(family: str, word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = make_pico(family)
    batches = batches_for(family, word_data, tokenizer, 4)
    longer = [padded(batch, 5) for batch in batches]
    assert all(not batch["attention_mask"].all() for batch in longer)
    assert longer[0]["input_ids"].shape[1] == batches[0]["input_ids"].shape[1] + 5
    plain, more = (measure_moments(model, each, progress=False) for each in (batches, longer))
    weighted, more_weighted = (
        measure_moments(model, each, margin_gradients(model, each, progress=False).tokens, progress=False)
        for each in (batches, longer)
    )
    for rows, others in ((plain, more), (weighted, more_weighted)):
        for row, other in zip(rows, others, strict=True):
            for part, same in zip(row, other, strict=True):
                assert part is not None and same is not None
                assert part.tokens == same.tokens == sum(int(batch["attention_mask"].sum()) for batch in batches)
                torch.testing.assert_close(part.matrix(), same.matrix(), rtol=1e-4, atol=1e-5)


def test_measured_moments_are_those_of_the_inputs_of_real_tokens(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    model = make_pico().train()
    batches = batches_for("bert", word_data, tokenizer, 4, per_batch=2)
    weights = margin_gradients(model, batches, progress=False).tokens
    path = architecture_of(model.config).ffn_out
    found = measure_moments(model, batches, weights, progress=False)[2][1]
    assert model.training
    seen: list[Tensor] = []
    module = encoder_layers(model)[2].get_submodule(path)
    hook = module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    with torch.inference_mode():
        for batch in batches:
            model.eval()(**model_inputs(batch))
    hook.remove()
    rows, shares = [], []
    for batch, inputs, weight in zip(batches, seen, weights, strict=True):
        for pair, token in batch["attention_mask"].nonzero().tolist():
            rows.append(torch.cat([inputs[pair, token], torch.ones(1)]))
            shares.append(weight[2, path][pair, token])
    x, w = torch.stack(rows).double(), torch.stack(shares).double()
    assert found is not None
    torch.testing.assert_close(found.matrix(), 2 / w.sum() * (x * w[:, None]).T @ x, rtol=1e-4, atol=1e-6)


def test_sublayers_without_inputs_have_no_moments(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = apply_plan(make_pico(), uneven_plan())
    moments = measure_moments(model, batches_for("bert", word_data, tokenizer), progress=False)
    assert [[part is not None for part in row] for row in moments] == [[True, True], [False, True], [True, False]]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_fewer_tokens_than_columns_are_refused(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    batches = batches_for("bert", word_data, tokenizer, 1, per_batch=1, documents=2)
    tokens = int(batches[0]["attention_mask"].sum())
    assert tokens < 64
    with pytest.raises(DataError, match=rf"too few calibration pairs.*{tokens} tokens.*at least (32|64), one for each"):
        measure_moments(make_pico(), batches, progress=False)
    with pytest.raises(DataError, match="0 tokens"):
        measure_moments(make_pico(), [], progress=False)


# Fits


def ridge(layer: nn.Linear, x: Tensor, y: Tensor, weights: Tensor, damping: float) -> Tensor:
    """`argmin_W (2/N) sum w |W x - y|^2 + damping mean(diag H) |W - W_0|^2` from its equations, one above the other."""
    bias = layer.bias is not None
    start = torch.cat([layer.weight, layer.bias[:, None]], 1) if bias else layer.weight
    start, x, y, weights = start.detach().double(), x.double(), y.double(), weights.double()
    total, columns = weights.sum(), x.shape[1]
    strength = damping * (2 / total * (weights[:, None] * x.square()).sum(0)).mean()
    extended = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1) if bias else x
    share = (2 / total * weights).sqrt()[:, None]
    held = strength.sqrt() * torch.eye(columns, columns + bias, dtype=torch.float64)
    rows, wanted = torch.cat([share * extended, held]), torch.cat([share * y, held @ start.T])
    return torch.linalg.lstsq(rows, wanted, driver="gels").solution.T


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("damping", [1e-3, 0.1, 3.0])
def test_a_fit_is_the_ridge_solution(bias: bool, weighted: bool, damping: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 3, bias=bias)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    x, y = draw(50, 6) + 1, draw(50, 3, seed=1)
    weights = draw(50, seed=2).square() if weighted else torch.ones(50)
    fit = Fit(layer)
    for part in (slice(0, 20), slice(20, 50)):
        fit.add(x[part], y[part], weights[part] if weighted else None)
    found = fit.solve(damping)
    expected = ridge(layer, x, y, weights, damping)
    torch.testing.assert_close(found["weight"].double(), expected[:, :6], rtol=1e-4, atol=1e-5)
    if bias:
        torch.testing.assert_close(found["bias"].double(), expected[:, 6], rtol=1e-4, atol=1e-5)
    assert found.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_without_damping_a_planted_map_is_found() -> None:
    torch.manual_seed(0)
    layer, planted = nn.Linear(6, 3), nn.Linear(6, 3)
    x = draw(80, 6) - 2
    fit = Fit(layer)
    fit.add(x, planted(x).detach())
    found = fit.solve(1e-9)
    for name, tensor in planted.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-3)


def test_damped_without_end_the_weight_stays_and_the_bias_is_fitted() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 3)
    x, y = draw(80, 6) - 2, draw(80, 3, seed=1)
    fit = Fit(layer)
    fit.add(x, y)
    found = fit.solve(1e9)
    torch.testing.assert_close(found["weight"], layer.weight.detach())
    torch.testing.assert_close(found["bias"], (y - x @ layer.weight.detach().T).mean(0), rtol=1e-4, atol=1e-5)


def test_what_it_puts_out_already_changes_nothing() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 3)
    x = draw(80, 6)
    fit = Fit(layer)
    fit.add(x, layer(x).detach())
    for name, tensor in fit.solve(0.1).items():
        torch.testing.assert_close(tensor, layer.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_of_a_bias_alone_the_fit_is_the_mean() -> None:
    fit = Fit(BiasOnly(3))
    y = draw(20, 3)
    weights = draw(20, seed=1).square()
    fit.add(torch.zeros(20, 0), y, weights)
    found = fit.solve(0.1)
    assert found["weight"].shape == (3, 0)
    torch.testing.assert_close(found["bias"], (weights[:, None] * y).sum(0) / weights.sum(), rtol=1e-4, atol=1e-5)
