"""The card: front matter the Hub accepts, the verdict in its three cases, tables, and the same bytes every time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import MARGIN, QUERIES, example_artifact, example_delta, example_report

from hfcompress.card import render, write_card
from hfcompress.card.front_matter import read_front_matter
from hfcompress.card.verdicts import reason
from hfcompress.evaluation.explain import primary_artifact
from hfcompress.evaluation.significance import compare
from hfcompress.report.explanation import (
    Explanation,
    MeanSaliencyAgreement,
    MovedQuery,
    QueryGroup,
    RelevantDocument,
    SaliencyAgreement,
)
from hfcompress.report.report import AlsoSummary, Alternative, Delta, Drift, RunReport, Stability
from hfcompress.report.schema import Interval
from hfcompress.report.speed import ColdStart, SingleThread
from hfcompress.report.structure import SparsitySummary, VocabularySummary
from hfcompress.utils.text import plain


def front_matter_of(report: RunReport) -> dict[str, Any]:
    """The front matter as the Hub's own client reads it."""
    return ModelCard(render(report)).data.to_dict()


def test_front_matter_survives_the_hubs_reader_and_writer() -> None:
    text = render(example_report())
    card = ModelCard(text)
    assert str(card) == text
    assert card.data.to_dict() == yaml.safe_load(text.split("---\n")[1])
    assert card.data.pipeline_tag == "text-ranking"
    assert card.data.library_name == "sentence-transformers"
    assert card.data.license == "apache-2.0"
    assert card.data.language == "en"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data["base_model_relation"] in ("adapter", "finetune", "merge", "quantized")
    assert {"cross-encoder", "reranker", "hfcompress", "pruning", "distillation", "int8", "custom_code"} <= set(
        card.data.tags
    )
    assert card.data.metrics == ["ndcg@10", "mrr@10", "map", "recall@10"]


# PyYAML, by which the client writes, does not read these line breaks of Unicode back as it wrote them.
_CHARACTERS = st.characters(exclude_categories=["Cs", "Zl", "Zp"], exclude_characters="\x85")
# The last letter keeps texts from being "None" or empty.
TEXTS = st.text(_CHARACTERS, max_size=40).map(lambda text: f"{text}x")


@settings(max_examples=40, deadline=None)
@given(name=TEXTS, data=TEXTS, licence=TEXTS, language=st.sampled_from(["en", "no", "zh-Hant", "pt-BR", "fil", ""]))
def test_the_client_reads_every_front_matter_and_writes_the_same_bytes(
    name: str, data: str, licence: str, language: str
) -> None:
    report = example_report()
    summary = report.data.model_copy(update={"name": data, "language": language})
    text = render(report.model_copy(update={"name": name, "data": summary, "license": licence}))
    assert str(ModelCard(text)) == text
    fields = read_front_matter(text)
    assert fields["model-index"][0]["name"] == name
    assert fields["model-index"][0]["results"][0]["dataset"]["name"] == data
    assert fields.get("language") == (language.split("-")[0] or None)
    assert text == render(report.model_copy(update={"name": name, "data": summary, "license": licence}))


def test_model_index_holds_the_primary_artifact() -> None:
    results = ModelCard(render(example_report())).data.eval_results
    assert [(result.metric_type, result.metric_value) for result in results][:2] == [
        ("ndcg@10", 0.5687),
        ("mrr@10", 0.5314),
    ]
    assert all("student-int8" in result.metric_name for result in results)
    assert (results[0].task_type, results[0].dataset_type, results[0].dataset_split) == (
        "text-ranking",
        "api-search",
        "test",
    )


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", {"license": "mit"}),
        ("", {"license": "unknown"}),
        ("My own licence, v2", {"license": "other", "license_name": "my-own-licence-v2"}),
    ],
)
def test_licences(licence: str, expected: dict[str, str]) -> None:
    found = front_matter_of(example_report(license=licence))
    assert {key: value for key, value in found.items() if key.startswith("license")} == expected


@pytest.mark.parametrize(
    ("base_model", "linked"),
    [("org/name", True), ("bert-base-uncased", True), ("/models/mine", False), ("../mine", False), ("a/b/c", False)],
)
def test_base_model_is_named_only_if_it_can_be_on_the_hub(base_model: str, linked: bool) -> None:
    report = example_report(base_model=base_model)
    assert front_matter_of(report).get("base_model") == (base_model if linked else None)
    assert ("base_model_relation" in front_matter_of(report)) is linked
    assert (f"https://huggingface.co/{base_model}" in render(report)) is linked


def test_languages_beyond_two_letters_have_their_own_field() -> None:
    data = example_report().data.model_copy(update={"language": "zh-Hant"})
    found = front_matter_of(example_report(data=data))
    assert (found["language"], found["language_bcp47"]) == ("zh", ["zh-Hant"])


@pytest.mark.parametrize(
    ("languages", "codes", "tags"),
    [
        ("de, en", ["de", "en"], None),
        ("en, zh-Hans, zh-Hant", ["en", "zh"], ["en", "zh-Hans", "zh-Hant"]),
        ("en", "en", None),
        ("", None, None),
    ],
)
def test_data_in_several_languages(languages: str, codes: object, tags: object) -> None:
    data = example_report().data.model_copy(update={"language": languages})
    found = front_matter_of(example_report(data=data))
    assert (found.get("language"), found.get("language_bcp47")) == (codes, tags)


def test_the_fastest_non_inferior_artifact_comes_first() -> None:
    report = example_report()
    opening = body(report)[:900]
    assert primary_artifact(report.artifacts) is report.artifacts[1]
    assert "**`student-int8` is non-inferior to its teacher:**" in opening
    assert "a loss of 0.01 nDCG@10 or more is ruled out" in opening
    assert "difference +0.0013, 95% interval [-0.0090, +0.0200], 8 test queries of api-search" in opening
    assert (
        "895 documents a second" in opening
        and "**9.3x**" in opening
        and "14.9 MB on disk instead of 91.0 MB" in opening
    )


@pytest.mark.parametrize("verdict", ["inconclusive", "inferior"])
def test_without_a_non_inferior_artifact_the_closest_is_named(verdict: str) -> None:
    artifacts = [
        example_artifact("far", "openvino", 9.0, example_delta(-0.05, "inferior")),
        example_artifact("close", "onnxruntime", 2.0, example_delta(-0.015, verdict)),
    ]
    report = example_report(artifacts=artifacts)
    opening = body(report)[:900]
    assert primary_artifact(report.artifacts) is artifacts[1]
    assert "**No artifact is shown to be non-inferior to its teacher** at a margin of 0.01 nDCG@10" in opening
    assert f"The closest is `close`, with the verdict *{verdict}*" in opening
    assert ("probability of 41%" in opening) is (verdict == "inconclusive")


def test_a_run_without_artifacts_has_no_verdict() -> None:
    report = example_report(artifacts=[], pruning=None, steps=[])
    text = render(report)
    assert primary_artifact(report.artifacts) is None
    assert "**No verdict:**" in text
    assert "model-index" not in text.split("---\n")[1]
    assert str(ModelCard(text)) == text


def test_a_weak_teacher_is_named_as_one() -> None:
    report = example_report()
    words = "**The teacher ranks these queries no better than BM25 alone (nDCG@10 0.5674 against 0.5674)"
    assert words not in body(report)
    report.first_stage.quality["ndcg@10"] = report.teacher.quality["ndcg@10"]
    assert words in body(report)


def test_results_table() -> None:
    rows = [line for line in body(example_report()).splitlines() if line.startswith("|")]
    assert "| BM25 (first stage) | 0.5190 | 0.4800 |  |  |  |  |  |" in rows
    assert "| teacher, fp32 PyTorch | 0.5674 | 0.5301 |  |  | 96.2 | 1.0x | 91.0 |" in rows
    assert (
        "| `student-int8` | 0.5687 | 0.5314 | +0.0013 [-0.0090, +0.0200] | non-inferior | 895 | 9.3x | 14.9 |"
    ) in rows
    assert "| `student-int8` | 22.4 | 32.3 |" in rows  # p50 and p95: nothing else was measured
    assert "| 0 | 2 of 4: 0, 3 | 768 of 1,536 |" in rows
    assert "| 1 | layer dropped | layer dropped |" in rows
    assert "| 2 | 0 of 4: none | 64 of 1,536 |" in rows
    assert "| `student-int8` | 0.9120 | 0.9530 | 0.04% |" in rows
    assert "| `query-7` | 0.7000 → 0.2500 (-0.4500) |" in rows
    assert "| `query-0` | 0.0000 → 0.5000 (+0.5000) |" in rows


def test_what_the_run_cost() -> None:
    text = body(example_report())
    assert "Train 5 min 12 s (kept from an earlier run), recover 1 h 06 min, evaluate 3.2 s." in text
    assert "**Cost of the run** on that machine: 1 h 11 min." in text


def test_target_and_prediction_are_shown_only_if_there_are_any() -> None:
    pruning = example_report().pruning
    assert pruning is not None
    plain = body(example_report())
    assert "searched" not in plain and "vocabulary" not in plain
    vocabulary = VocabularySummary(
        tokens_before=30522, tokens_after=9876, min_count=2, held_out_pairs=2000, changed_share=0.0125
    )
    sought = pruning.model_copy(
        update={"target": "speedup 2", "calibration_loss": 0.01, "predicted_speedup": 2.0456, "vocabulary": vocabulary}
    )
    text = body(example_report(pruning=sought))
    assert "searched for the target `speedup 2` in measured time; the search predicted 2.05x the speed" in text
    assert (
        "9,876 of 30,522 tokens remain in the vocabulary; "
        "1.2% of 2,000 pairs of other queries are tokenized differently"
    ) in text
    of_macs = body(example_report(pruning=sought.model_copy(update={"predicted_speedup": None, "vocabulary": None})))
    assert "predicted" not in of_macs and "tokens remain" not in of_macs


def test_reports_of_earlier_runs_without_a_search_are_still_read(tmp_path: Path) -> None:
    report = example_report()
    path = report.save(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in ("target", "calibration_loss", "predicted_speedup", "vocabulary"):
        del content["pruning"][key]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert RunReport.load(tmp_path) == report


def test_stability_is_shown_if_it_was_measured(tmp_path: Path) -> None:
    report = example_report()
    assert "Score stability" not in body(report)
    drifts = (
        Drift(largest=0.0456, mean=0.00123, swapped_share=0.0125), Drift(largest=0.5, mean=0.25, swapped_share=0.0)
    )  # fmt: skip
    steady = Stability(pairs=128, batched=drifts[0], padded=drifts[1], rank_correlation=0.9876)
    exact = steady.model_copy(update={"rank_correlation": None})
    first, second = report.artifacts
    artifacts = [first.model_copy(update={"stability": exact}), second.model_copy(update={"stability": steady})]
    measured = example_report(artifacts=artifacts)
    text = body(measured)
    assert "| `student-int8` | 0.0012 / 0.046 / 1.2% | 0.25 / 0.5 / 0.0% | 0.9876 |" in text
    assert "| `student-onnx` | 0.0012 / 0.046 / 1.2% | 0.25 / 0.5 / 0.0% |  |" in text
    assert "How far the scores of 128 pairs" in text
    measured.save(tmp_path)
    assert RunReport.load(tmp_path) == measured
    content = json.loads(report.save(tmp_path).read_text(encoding="utf-8"))
    for artifact in (content["teacher"], *content["artifacts"]):
        del artifact["stability"]  # a report from before it was measured
    (tmp_path / "report.json").write_text(json.dumps(content), encoding="utf-8")
    assert RunReport.load(tmp_path) == report


def test_additional_texts_of_the_recovery_are_named(tmp_path: Path) -> None:
    report = example_report()
    assert "Additional texts" not in render(report)
    also = [
        AlsoSummary(name="notes", documents=40, lists=12, license="mit"),
        AlsoSummary(name="x", documents=1, lists=1),
    ]
    report = report.model_copy(update={"data": report.data.model_copy(update={"also": also})})
    report.save(tmp_path)
    text = render(RunReport.load(tmp_path))
    assert "notes (12 training lists, 40 documents, licence: mit), x (1 training list, 1 document): recovery" in text
    unused = [each.model_copy(update={"lists": 0}) for each in also]
    text = render(report.model_copy(update={"data": report.data.model_copy(update={"also": unused})}))
    assert "documents, licence: mit), x (0 training lists, 1 document): half of the queries" in text


def test_queries_left_out_are_counted() -> None:
    report = example_report()
    more = report.data.model_copy(update={"queries": {"test": 11}})
    assert "without a relevant document are left out." in render(report)
    assert "without a relevant document are left out (3 of the test queries)." in render(example_report(data=more))


def explained_report(**changes: Any) -> RunReport:
    """A report with everything that is measured today."""
    report = example_report()
    interval = Interval(low=9.11, high=9.58, confidence=0.95)
    teacher, slow, fast = report.teacher, *report.artifacts

    def timed(artifact: Any, factor: float) -> dict[str, Any]:
        one = artifact.latency.model_copy(update={"threads": 1, "p50_ms": 400 / factor, "queries": 10})
        start = ColdStart(import_seconds=0.5, load_seconds=0.25, first_query_seconds=0.5, peak_memory_bytes=123_000_000)
        return {
            "latency": artifact.latency.model_copy(update={"p99_ms": 350 / factor, "queries": 30}),
            "single_thread": SingleThread(latency=one, speedup=factor),
            "cold_start": start,
        }

    explanation = Explanation(
        artifact="student-int8",
        moved=[
            MovedQuery(
                query="query-7", teacher=0.7, artifact=0.25, tokens=9, candidates=20, text="sort | a *list* <b>",
                documents=[
                    RelevantDocument(
                        document="d1", grade=1, teacher_rank=2, artifact_rank=11, tokens=140, truncated=True
                    )
                ],
                saliency=SaliencyAgreement(document="d1", words=20, correlation=0.4321, overlap=0.6),
            ),
            MovedQuery(query="query-0", teacher=0.0, artifact=0.5, tokens=3, candidates=20, documents=[]),
        ],
        by_query_length=[
            QueryGroup(least=3, most=5, queries=5, teacher=0.5, difference=-0.0123, standard_error=0.004),
            QueryGroup(least=6, most=6, queries=3, teacher=0.4, difference=0.01, standard_error=None),
        ],
        by_relevant=[QueryGroup(least=1, most=1, queries=8, teacher=0.5, difference=0.0, standard_error=0.1)],
        steady_saliency=MeanSaliencyAgreement(queries=2, correlation=0.876, overlap=0.9),
    )  # fmt: skip
    values: dict[str, Any] = {
        "teacher": teacher.model_copy(update=timed(teacher, 1.0)),
        "artifacts": [
            slow.model_copy(update=timed(slow, 2.6)),
            fast.model_copy(update={**timed(fast, 9.3), "speedup_interval": interval}),
        ],
        "explanation": explanation,
    }
    return example_report(**values | changes)


def test_speed_of_single_queries_one_thread_cold_start_and_memory() -> None:
    rows = [line for line in body(explained_report()).splitlines() if line.startswith("|")]
    assert (
        "|  | p50 ms | p95 ms | p99 ms | p50 ms on 1 thread | Speed-up on 1 thread | Cold start s | Peak memory MB |"
        in rows
    )
    assert "| `student-int8` | 22.4 | 32.3 | 37.6 | 43.0 | 9.3x | 1.2 | 123 |" in rows
    assert any("| 895 | 9.3x [9.1, 9.6] | 14.9 |" in row for row in rows)
    text = body(explained_report())
    assert "p50, p95, p99: time of one query with 20 documents (30 were timed), with 2 threads." in text
    assert "its interval (95%) the sign test's" in text and "sign test" not in body(example_report())


def test_moved_queries_are_explained() -> None:
    text = body(explained_report())
    assert (
        r"| `query-7` sort \| a \*list\* \<b\> | 0.7000 → 0.2500 (-0.4500) | 2 → 11 of 20 | 9, 140 (cut) | 0.43, 60% |"
    ) in text
    assert "| `query-0` | 0.0000 → 0.5000 (+0.5000) |  | 3 |  |" in text
    assert "On average 0.43, 60%; where nothing moved 0.88, 90% (2 pairs)." in text
    assert "| 3 to 5 tokens | 5 | 0.5000 | -0.0123 ± 0.0040 |" in text
    assert "| 6 tokens | 3 | 0.4000 | +0.0100 |" in text
    assert "Relevant documents: all test queries have 1 document." in text
    without = explained_report().explanation
    assert without is not None
    plain_moves = [query.model_copy(update={"saliency": None}) for query in without.moved]
    text = body(explained_report(explanation=without.model_copy(update={"moved": plain_moves})))
    assert "Same words" not in text and "| `query-0` | 0.0000 → 0.5000 (+0.5000) |  | 3 |" in text


def test_reports_with_explanations_are_read_back(tmp_path: Path) -> None:
    report = explained_report()
    report.save(tmp_path)
    assert RunReport.load(tmp_path) == report


def test_plain_text_stays_as_it_is() -> None:
    assert plain("a_b `c` [d](e) <f> #1 \\") == r"a\_b \`c\` \[d\](e) \<f\> \#1 " + "\\\\"


def test_every_table_is_rectangular() -> None:
    report = example_report()
    strange = report.artifacts[0].model_copy(update={"name": "a|b `c`\nd"})
    text = body(example_report(artifacts=[strange, report.artifacts[1]]))
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_nothing_unset_is_printed_and_nothing_is_called_lossless() -> None:
    bare = example_artifact(
        "bare", "torch", 2.0, example_delta(0.0, "non-inferior"), quality={"ndcg@10": 0.5}, agreement={}
    )
    reports = [example_report(), example_report(artifacts=[bare]), example_report(artifacts=[], pruning=None)]
    for report in (*reports, explained_report()):
        text = render(report)
        prose = re.sub(r"```(python|js)\n.*?```", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(None|nan|inf)\b", prose)
        assert "lossless" not in text.lower()
        assert "-0.0000" not in text
        assert "/somewhere/private" not in text


def test_the_recipe_is_verbatim_whatever_it_holds() -> None:
    recipe = "name: x\nnote: |\n  ```yaml\n  a: 1\n  ```"
    assert f"````yaml\n{recipe}\n````" in render(example_report(recipe=recipe))
    assert f"```yaml\n{example_report().recipe}```" in render(example_report())


def test_a_real_comparison_fits_into_the_card() -> None:
    student = {query: value + (0.02 if value > 0.3 else -0.01) for query, value in QUERIES.items()}
    delta = compare(QUERIES, student, MARGIN, resamples=200)
    text = body(example_report(artifacts=[example_artifact("real", "torch", 2.0, delta, per_query=student)]))
    assert f"| {delta.verdict} |" in text
    assert "is better than the teacher on 4 of the 8 test queries, worse on 4 and the same on 0." in text


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    report = example_report()
    first = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in write_card(tmp_path, report)}
    report.save(tmp_path)
    again = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in write_card(tmp_path, RunReport.load(tmp_path))
    }
    assert list(first) == ["README.md", "figures/pareto.png", "figures/structure.png"]
    assert first == again
    for figure in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", first["README.md"].decode()):
        assert figure in first


def test_without_pruning_there_is_no_structure_figure(tmp_path: Path) -> None:
    written = write_card(tmp_path, example_report(pruning=None))
    assert [path.name for path in written] == ["README.md", "pareto.png"]
    assert "structure.png" not in written[0].read_text(encoding="utf-8")


def body(report: RunReport) -> str:
    """The card without its front matter."""
    return ModelCard(render(report)).text


def corrected_delta(mean: float, verdict: str, corrected: str, p_value: float, **changes: Any) -> Delta:
    values = {
        "queries": 8, "queries_needed": 1234, "p_difference": 0.3, "p_non_inferior": p_value / 2,
        "p_corrected": p_value, "corrected": corrected, "worst_query": "query-7", "worst": -0.45,
    }  # fmt: skip
    return example_delta(mean, verdict).model_copy(update={**values, **changes})


def test_the_corrected_verdict_decides() -> None:
    fast = example_artifact("fast", "openvino", 9.0, corrected_delta(0.01, "non-inferior", "inconclusive", 0.04))
    slow = example_artifact("slow", "torch", 2.0, corrected_delta(0.02, "non-inferior", "non-inferior", 0.004))
    report = example_report(artifacts=[fast, slow])
    text = body(report)
    assert primary_artifact(report.artifacts) is slow and "**`slow` is non-inferior to its teacher:**" in text
    assert (
        "| `fast` | non-inferior | 0.0200 | 0.0400 | inconclusive | 0.3000 | 41% | 1,234 | -0.4500 (`query-7`) |"
        in text
    )
    assert (
        "What decides is the column **Verdict**" in text
        and "corrected by Holm for 2 artifacts, is at most 0.025" in text
    )
    assert "Each artifact is tested by itself" not in text and "lossless" not in text.lower()
    alone = body(example_report(artifacts=[fast]))
    assert "**No artifact is shown to be non-inferior to its teacher**" in alone
    assert (
        "the test does not, with a p-value of 0.0400 after the correction for 1 artifact, where 0.025 is allowed"
        in alone
    )


def test_the_card_says_what_would_pass() -> None:
    delta = example_delta(-0.001, "inconclusive").model_copy(update={"queries": 100})
    other = Alternative(name="unpruned, openvino int8", speedup=4.6, delta=delta, probability=0.91)
    report = example_report()
    lost = [each.model_copy(update={"delta": example_delta(-0.012, "inconclusive")}) for each in report.artifacts]
    report = report.model_copy(update={"artifacts": lost})
    assert "would pass" not in body(report)
    opening = body(report.model_copy(update={"would_pass": other}))[:1600]
    assert "**4.6x would pass:** unpruned, openvino int8, measured on 100 dev queries (difference -0.0010" in opening
    assert "with a probability of 91%. It was not tested on test queries" in opening


def test_artifacts_are_tested_in_sequence() -> None:
    first = example_artifact("first", "openvino", 9.0, corrected_delta(0.01, "non-inferior", "non-inferior", 0.01))
    second = example_artifact("second", "torch", 2.0, corrected_delta(0.02, "inconclusive", "inconclusive", 0.02))
    third = example_artifact("third", "torch", 1.0, corrected_delta(0.005, "non-inferior", "inconclusive", 0.02))
    report = example_report(artifacts=[third, second, first])
    report = report.model_copy(update={"sequence": ["first", "second", "third"]})
    text = body(report)
    assert primary_artifact(report.artifacts, report.sequence) is first
    assert "**`first` is non-inferior to its teacher:**" in text and "Holm" not in text
    assert "| p in sequence |" in text and "(`first`, `second`, `third`): the first is the one to deploy" in text
    rows = [line.split(" | ")[0] for line in text.partition("## Verdict")[2].splitlines() if line.startswith("| `")]
    assert rows[:3] == ["| `first`", "| `second`", "| `third`"]
    # What is to be deployed speaks for the run, whatever passed besides.
    failed = body(report.model_copy(update={"sequence": ["third", "first", "second"]}))
    assert "**`third` is not shown to be non-inferior to its teacher**" in failed
    assert reason(report, third) == "it was to be tested only if `second`, tested before it, is non-inferior"


def test_older_reports_have_no_section_on_the_verdict() -> None:
    text = body(example_report())
    assert "## Verdict" not in text and "Holm" not in text and "Each artifact is tested by itself" in text


def test_several_sets_have_a_table_of_their_own() -> None:
    parts = {
        "selqa": corrected_delta(0.01, "non-inferior", "non-inferior", 0.01, queries=5),
        "googleq": corrected_delta(-0.05, "inferior", "inferior", 1.0, queries=3),
    }
    delta = corrected_delta(0.0, "inconclusive", "inconclusive", 0.3, by_set=parts)
    text = body(example_report(artifacts=[example_artifact("both", "torch", 2.0, delta)]))
    row = "| `both` | googleq | 3 | -0.0500 [-0.0600, -0.0110] | inferior | 1.0000 | inferior | 41% | -0.4500 ("
    assert row in text and "Each data set by itself" in text
    report = example_report(artifacts=[example_artifact("both", "torch", 2.0, delta)])
    assert RunReport.model_validate_json(report.model_dump_json()) == report


def test_packed_weights_and_zeros_claim_no_speed() -> None:
    plain = example_report()
    assert not any(word in render(plain) for word in ("deflate", "Packed weights", "are zero"))
    packed = example_artifact(
        "student-torch-int4-weights", "torch", 1.0, example_delta(0.0, "non-inferior"), precision="int4-weights",
        path="packed/model_int4.safetensors", deflated_bytes=7_700_000,
    )  # fmt: skip
    weights = SparsitySummary(pattern="2:4", sparsity=0.5, zero_share=0.4996)
    artifacts = [*(one.model_copy(update={"deflated_bytes": 12_300_000}) for one in plain.artifacts), packed]
    teacher = plain.teacher.model_copy(update={"deflated_bytes": 84_000_000})
    pruning = plain.pruning.model_copy(update={"weights": weights})
    text = render(plain.model_copy(update={"artifacts": artifacts, "teacher": teacher, "pruning": pruning}))
    assert "50.0% are zero (two of every four neighbours in a row). They are stored and multiplied like any" in text
    assert "`student-torch-int4-weights`: low-bit weight-only quantization" in text
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|") and "MB deflated" in line]
    (head,) = rows
    (row,) = [
        line.split("|")
        for line in text.splitlines()
        if line.startswith("| `student-torch-int4-weights` | ") and len(line.split("|")) == len(head)
    ]
    assert len(row) == len(head) and row[-2].strip() == "7.7"
    assert "Packed weights (int4-weights)" in text and 'file="packed/model_int4.safetensors"' in text
