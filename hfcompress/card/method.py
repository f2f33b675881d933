"""Sections of the card on methods, run time and limits."""

from __future__ import annotations

from hfcompress.card import devices, fidelity, verdicts
from hfcompress.report.report import DataSummary, RunReport
from hfcompress.report.speed import Latency
from hfcompress.utils import text as md

FEW_QUERIES = 100


def measuring(report: RunReport) -> str:
    """The section on data, metrics, statistics, timing and hardware."""
    data, machine, latency = report.data, report.machine, report.teacher.latency
    licence = f" (licence: {data.license})" if data.license else ""
    left_out = data.queries.get("test", 0) - len(report.teacher.per_query)
    language = f", language `{data.language}`" if data.language else ""
    splits = ", ".join(f"{name} {queries:,}" for name, queries in data.queries.items())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items()))
    points = [
        f"**Data:** {data.name}{licence}{language}; queries: {splits}; {md.count(data.documents, 'document')}; "
        f"on average {data.candidates_per_query:.1f} candidates a query and {data.mean_tokens:.0f} tokens a pair. "
        f"SHA-256 of ids, texts, judgements and candidates: `{data.fingerprint}`.",
        *(f"**Note:** {note}" for note in data.notes),
        *([_also(data)] if data.also else []),
        "**Quality:** on the test split; first stage, teacher and artifacts rank the same candidates. Metrics are "
        "trec_eval's; the gain of nDCG@10 is the grade. Documents without a judgement are not relevant, and queries "
        f"without a relevant document are left out{f' ({left_out:,} of the test queries)' if left_out > 0 else ''}.",
        "**Ties:** documents with equal scores (in single precision) are ordered by id, descending, as in trec_eval.",
        *([_scores(data)] if data.score_text else []),
        _long_documents(report),
        verdicts.rule(report),
        f"**Speed:** teacher and artifacts take turns{_sample(latency)}, part by part and query by query, so that a "
        "busy moment of the machine meets all alike. The speed-up is the median of the ratios of paired parts"
        f"{_median_interval(report)}. Tokenization is counted. {md.count(latency.threads, 'thread')}, batches of at "
        f"most {latency.batch:,} tokens.",
        f"**Machine:** {machine.cpu}, {md.count(machine.cores, 'core')}, {machine.memory_gb:.0f} GB of memory, "
        f"{machine.platform}; instruction sets: {', '.join(machine.flags) or 'not known'}.{_device(report)}",
        f"**Versions:** {versions}.",
    ]
    return f"## How it was measured\n\n{_points(points)}"


def _long_documents(report: RunReport) -> str:
    """What is read of pairs that are longer than an input."""
    longer = f"{md.percent(report.data.truncated_share)} of the pairs are longer."
    found = report.long_documents
    if found is None:
        return (
            f"**Truncation:** teacher and artifacts alike read at most {report.max_length} tokens of a pair; {longer}"
        )
    return (
        f"**Long documents:** an input has at most {report.max_length} tokens; {longer} For teacher and artifacts "
        f"alike they were {found}; training read them truncated."
    )


def cost(report: RunReport) -> str:
    """The wall time of the steps of the run."""
    if not report.steps:
        return ""
    steps = ", ".join(
        f"{step.name} {md.duration(step.seconds)}{' (kept from an earlier run)' if step.reused else ''}"
        for step in report.steps
    )
    total = md.duration(sum(step.seconds for step in report.steps))
    return f"**Cost of the run** on that machine: {total}. {steps[:1].upper()}{steps[1:]}."


def limits(report: RunReport) -> str:
    """The section on the limits of the results."""
    queries = len(report.teacher.per_query)
    points = [
        f"The verdict holds for the {queries:,} test queries of {report.data.name} and queries like them. Other "
        f"domains, languages and first stages {_unmeasured(report)} not measured: run the recipe on your own queries.",
        "Non-inferior does not mean equal. It rules out a mean loss of the margin or more, at the confidence given; a "
        f"smaller loss is possible, and single queries do lose. {verdicts.several(report)} The other metrics have no "
        "verdict.",
        "Speed was measured on one machine. Int8 gains most where the CPU has instructions for it (VNNI, AMX); on "
        "another CPU, or with other threads or lengths, even the order of the artifacts may change.",
        fidelity.limit(report),
        "A reranker orders what the first stage finds; what is missing there, it cannot bring back.",
    ]
    if queries < FEW_QUERIES:
        points.insert(1, f"{queries} queries are few: the interval is rough, and another sample may turn the verdict.")
    return f"## Limits\n\n{_points(points)}"


def _unmeasured(report: RunReport) -> str:
    """The verb about other domains, some of which zero-shot sets may stand for."""
    if report.zero_shot is None:
        return "were"
    return f"than those of {', '.join(each.name for each in report.zero_shot.sets)} (zero-shot) were"


def _also(data: DataSummary) -> str:
    """The additional texts of the recovery."""
    learned = "recovery also learned the teacher's scores, without labels, on them, and "
    texts = ", ".join(
        f"{each.name} ({md.count(each.lists, 'training list')}, {md.count(each.documents, 'document')}"
        f"{f', licence: {each.license}' if each.license else ''})"
        for each in data.also
    )
    return (
        f"**Additional texts:** {texts}: {learned if any(each.lists for each in data.also) else ''}half of the "
        "queries on which pruning was calibrated are from them. Nothing was evaluated on them."
    )


def _scores(data: DataSummary) -> str:
    """How BM25 scores are written into the texts."""
    settings = data.score_text
    assert settings is not None
    return (
        f"**Texts:** teacher and artifacts read every document behind its BM25 score over the "
        f"{md.count(data.documents, 'document')} of the corpus, as a number from 0 to 100 (100 from a score of "
        f"{settings.bm25_max:g} on) and {md.code(settings.separator)}. The time to compute it is not counted: a first "
        "stage by BM25 has it already."
    )


def _device(report: RunReport) -> str:
    """Where models were trained and scored, if not on the CPU."""
    if report.machine.device == "cpu":
        return ""
    return (
        f" Models in PyTorch were trained and scored on {report.machine.device}; speed was measured on the CPU"
        f"{' except where another device is named' if devices.several(report) else ''}."
    )


def _median_interval(report: RunReport) -> str:
    levels = {each.speedup_interval.confidence for each in report.artifacts if each.speedup_interval}
    return f", its interval ({', '.join(map(md.percent, sorted(levels)))}) the sign test's" if levels else ""


def _sample(latency: Latency) -> str:
    """Number of queries on which throughput was measured; empty in reports where these were all."""
    return f" on {latency.bulk_queries:,} of the test queries" if latency.bulk_queries else ""


def _points(points: list[str]) -> str:
    return "\n".join(f"- {point}" for point in points)
