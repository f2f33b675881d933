"""The model card: RunReport -> README.md and its figures. It reads the report and nothing else, and has no clock."""

from __future__ import annotations

from pathlib import Path

from hfcompress import figures, verdicts
from hfcompress import markdown as md
from hfcompress.evaluation.report import Artifact, Delta, PruningSummary, RunReport
from hfcompress.files import write_bytes, write_text
from hfcompress.front_matter import METRIC_NAMES, front_matter, hub_id
from hfcompress.layout import STRUCTURE_FILE
from hfcompress.snippets import loading_snippets

CARD_FILE = "README.md"

_MOVED = 5  # Queries shown on either side of "Queries that moved most".
_FEW_QUERIES = 100


def write_card(folder: Path, report: RunReport) -> list[Path]:
    """Write the card and its figures into `folder`; the same report gives the same bytes.

    Returns:
        The files written: `README.md`, `figures/pareto.png` and, if something was pruned, `figures/structure.png`.
    """
    written = [write_bytes(folder / figures.PARETO_FILE, figures.pareto(report))]
    if report.pruning:
        written.append(write_bytes(folder / STRUCTURE_FILE, figures.structure(report.pruning)))
    return [write_text(folder / CARD_FILE, render(report)), *written]


def render(report: RunReport) -> str:
    """Render the card as Markdown with front matter."""
    subject = headline(report)
    sections = [
        f"---\n{front_matter(report, subject)}\n---",
        f"# {report.name}",
        _verdict(report, subject),
        _origin(report),
        _results(report),
        verdicts.section(report),
        _pruning(report),
        _agreement(report),
        _stability(report),
        _moved(report, subject),
        f"## How to load it\n\n{loading_snippets(report)}",
        _method(report),
        _cost(report),
        _limits(report),
        f"## Recipe\n\n{md.fence(report.recipe, 'yaml')}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def headline(report: RunReport) -> Artifact | None:
    """The artefact for which the card speaks: the fastest non-inferior one, else the one that came closest.

    Closest is the one whose interval has the highest lower end, which is what decides first. None if no artefact was
    compared with the teacher.
    """
    compared = [(artifact, artifact.delta) for artifact in report.artifacts if artifact.delta]
    passed = [artifact for artifact, delta in compared if delta.decision == "non-inferior"]
    if passed:
        return max(passed, key=lambda artifact: artifact.speedup)
    return max(compared, key=lambda pair: pair[1].ci_low, default=(None, None))[0]


def _verdict(report: RunReport, subject: Artifact | None) -> str:
    if subject is None or subject.delta is None:
        return "**No verdict:** this run compared no artefact with the teacher."
    delta, teacher = subject.delta, report.teacher
    metric = _metric(report)
    found = (
        f"difference {md.signed(delta.mean)}, {md.percent(delta.confidence)} interval {_interval(delta)}, "
        f"{len(subject.per_query):,} test queries of {report.data.name}"
    )
    rates = [md.number(artifact.latency.docs_per_second) for artifact in (subject, teacher)]
    sizes = [md.megabytes(artifact.size_bytes) for artifact in (subject, teacher)]
    speed = (
        f"It scores {rates[0]} documents a second on the CPU named below, the teacher in fp32 PyTorch {rates[1]}: "
        f"**{md.times(subject.speedup)}** in paired rounds, with {md.count(subject.latency.threads, 'thread')} and "
        f"tokenization counted. It takes {sizes[0]} MB on disk instead of {sizes[1]} MB."
    )
    name = md.code(subject.name)
    if delta.decision == "non-inferior":
        return (
            f"**{name} is non-inferior to its teacher:** a loss of {delta.margin:g} {metric} or more is ruled out "
            f"({found}). {speed}"
        )
    compared = sum(artifact.delta is not None for artifact in report.artifacts)
    return (
        f"**No artefact is shown to be non-inferior to its teacher** at a margin of {delta.margin:g} {metric}. The "
        f"closest is {name}, with the verdict *{delta.decision}*: {verdicts.reason(delta, compared)} ({found}). {speed}"
    )


def _origin(report: RunReport) -> str:
    base = hub_id(report.base_model)
    source = f"[{base}](https://huggingface.co/{base})" if base else md.code(report.base_model)
    licence = f" Licence: {report.license}." if report.license.strip() else ""
    return (
        f"A reranker (cross-encoder): it reads a query and a document together and gives one score. Made by hfcompress "
        f"from {source} ({report.model_type}, at most {report.max_length} tokens a pair).{licence}"
    )


def _results(report: RunReport) -> str:
    confidences = {artifact.delta.confidence for artifact in report.artifacts if artifact.delta}
    interval = " and ".join(md.percent(level) for level in sorted(confidences))
    difference = f"Difference ({interval} interval)" if interval else "Difference"
    head = ["", "Runtime", "nDCG@10", "MRR@10", difference, "Verdict", "docs/s", "Speed-up", "p50 ms", "p95 ms", "MB"]
    stage, measured = report.first_stage, (report.teacher, *report.artifacts)
    deflated = any(artifact.deflated_bytes for artifact in measured)
    head += ["MB deflated"] * deflated
    rows = [[f"{md.code(stage.name)} (first stage)", "", *_quality(stage.quality), *[""] * (7 + deflated)]]
    for artifact in measured:
        delta, latency = artifact.delta, artifact.latency
        rows.append(
            [
                md.code(artifact.name) if artifact is not report.teacher else "teacher",
                f"{artifact.runtime} {artifact.precision}",
                *_quality(artifact.quality),
                f"{md.signed(delta.mean)} {_interval(delta)}" if delta else "",
                delta.decision if delta else "",
                md.number(latency.docs_per_second),
                md.times(artifact.speedup),
                md.number(latency.p50_ms),
                md.number(latency.p95_ms),
                md.megabytes(artifact.size_bytes),
                *[md.megabytes(artifact.deflated_bytes or 0)] * deflated,
            ]
        )
    return (
        f"## Results\n\n{md.table(head, rows, right_from=2)}\n\n"
        f"Difference: {_metric(report)} of the artefact less that of the teacher, mean over the test queries. "
        f"p50 and p95: time of one query with {round(report.teacher.latency.candidates, 1):g} documents. "
        f"MB: 10^6 bytes of the files that a deployment needs, tokenizer included{_deflated(deflated)}."
        f"{_packed(report)}\n\n"
        f"![nDCG@10 of the teacher and of every artefact against documents scored per second]({figures.PARETO_FILE})"
    )


def _deflated(measured: bool) -> str:
    return ", and of the same under deflate (zip, gzip), level 6" if measured else ""


def _packed(report: RunReport) -> str:
    """What packed weights save, and what they do not."""
    names = [md.code(artifact.name) for artifact in report.artifacts if artifact.precision.endswith("-weights")]
    if not names:
        return ""
    return (
        f" {', '.join(names)}: weights stored in few bits, dequantized to fp32 when they are loaded. That saves disk "
        "and download; time and memory are those of the model in fp32 PyTorch."
    )


def _pruning(report: RunReport) -> str:
    pruning = report.pruning
    if pruning is None:
        return "## What was pruned\n\nNothing: every artefact has the teacher's structure."
    kept = {layer.layer: layer for layer in pruning.layers}
    rows = []
    for row in range(pruning.layers_of):
        layer = kept.get(row)
        if layer is None:
            rows.append([str(row), "layer dropped", "layer dropped"])
        else:
            heads = ", ".join(map(str, sorted(layer.heads))) or "none"
            rows.append(
                [str(row), f"{len(layer.heads)} of {layer.heads_of}: {heads}", f"{layer.ffn:,} of {layer.ffn_of:,}"]
            )
    return (
        f"## What was pruned\n\n{len(pruning.layers)} of {md.count(pruning.layers_of, 'layer')} and "
        f"{md.percent(pruning.encoder_flops_kept)} of the encoder's multiply-adds a token are left. Heads and FFN "
        f"neurons were ranked by {md.code(pruning.importance)}. Numbers count from 0, as in the teacher."
        f"{_sought(pruning)}\n\n"
        f"![Heads and FFN neurons that each layer keeps]({STRUCTURE_FILE})\n\n"
        f"{md.table(['Layer', 'Heads kept', 'FFN neurons kept'], rows)}"
    )


def _sought(pruning: PruningSummary) -> str:
    """What was asked for and predicted, and what was cut out of the vocabulary."""
    sentences = ""
    if pruning.predicted_speedup:
        sentences += (
            f" The plan was searched for the target {md.code(pruning.target)} in measured time; the search predicted "
            f"{pruning.predicted_speedup:.2f}x the speed of the unpruned model on the same runtime."
        )
    if (vocabulary := pruning.vocabulary) is not None:
        sentences += (
            f" {vocabulary.tokens_after:,} of {vocabulary.tokens_before:,} tokens are left in the vocabulary; "
            f"{md.percent(vocabulary.changed_share, 1)} of {vocabulary.held_out_pairs:,} pairs of other queries are "
            "cut into other tokens than before."
        )
    if (weights := pruning.weights) is not None:
        which = "two of every four neighbours in a row" if weights.pattern == "2:4" else "the smallest of each matrix"
        sentences += (
            f" Of the weights in the encoder's linear layers, {md.percent(weights.zero_share, 1)} are zero ({which}). "
            "They are stored and multiplied like any other number: what they save is size under compression, in the "
            "table above, and the speed is what was measured with them."
        )
    return sentences


def _agreement(report: RunReport) -> str:
    rows = [
        [
            md.code(artifact.name),
            *(_optional(artifact.agreement, key) for key in ("kendall_tau", "overlap@10")),
            md.percent(artifact.tied_share, 2),
        ]
        for artifact in report.artifacts
    ]
    if not rows:
        return ""
    table = md.table(["", "Kendall tau-b", "Overlap of the top 10", "Tied scores"], rows, right_from=1)
    return (
        f"## Agreement with the teacher\n\n{table}\n\n"
        "How far an artefact orders the same candidates as the teacher does, whatever the judgements say; means over "
        "the test queries. Tied scores: share of neighbours in a ranking that have equal scores "
        f"({md.percent(report.teacher.tied_share, 2)} for the teacher)."
    )


def _stability(report: RunReport) -> str:
    measured = [(artifact, artifact.stability) for artifact in report.artifacts if artifact.stability]
    if not measured:
        return ""
    rows = []
    for artifact, stability in measured:
        kept, drifts = stability.rank_correlation, (stability.batched, stability.padded)
        figures = [
            (f"{drift.mean:.2g}", f"{drift.largest:.2g}", md.percent(drift.swapped_share, 1)) for drift in drifts
        ]
        rows.append([md.code(artifact.name), *map(" / ".join, figures), "" if kept is None else md.fixed(kept)])
    kind = "a quantized" if _packed(report) else "an int8"
    table = md.table(["", "In batches", "Under more padding", "Rank correlation with fp32"], rows, right_from=1)
    return (
        f"## Score stability\n\n{table}\n\n"
        f"How far the scores of {measured[0][1].pairs:,} pairs, each scored alone, move in batches sorted by length, "
        "and in batches padded to twice their longest pair: mean and largest difference in standard deviations of the "
        f"scores, and share of neighbours in a ranking that change places. Rank correlation: Spearman's, of {kind} "
        "artefact with the fp32 model that was quantized."
    )


def _moved(report: RunReport, subject: Artifact | None) -> str:
    if subject is None:
        return ""
    before, after = report.teacher.per_query, subject.per_query
    moves = sorted((after[query] - before[query], query) for query in before.keys() & after.keys())
    worse = [query for change, query in moves if change < 0]
    better = [query for change, query in reversed(moves) if change > 0]
    rows = [
        [md.code(query), md.fixed(before[query]), md.fixed(after[query]), md.signed(after[query] - before[query])]
        for query in (*worse[:_MOVED], *better[:_MOVED])
    ]
    summary = (
        f"In nDCG@10 {md.code(subject.name)} is better than the teacher on {len(better):,} of the {len(moves):,} test "
        f"queries, worse on {len(worse):,} and the same on {len(moves) - len(better) - len(worse):,}."
    )
    if rows:
        head = ["Query id", "Teacher", "Artefact", "Difference"]
        summary += f" The largest losses, then the largest gains:\n\n{md.table(head, rows, right_from=1)}"
    return f"## Queries that moved most\n\n{summary}"


def _method(report: RunReport) -> str:
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
        "**Quality:** on the test split; first stage, teacher and artefacts rank the same candidates. Metrics are "
        "trec_eval's; the gain of nDCG@10 is the grade. Documents without a judgement are not relevant, and queries "
        f"without a relevant document are left out{f' ({left_out:,} of the test queries)' if left_out > 0 else ''}.",
        "**Ties:** documents with equal scores (in single precision) are ordered by id, descending, as in trec_eval.",
        f"**Truncation:** teacher and artefacts alike read at most {report.max_length} tokens of a pair; "
        f"{md.percent(data.truncated_share)} of the pairs are longer.",
        verdicts.rule(report),
        "**Speed:** teacher and artefacts were timed in turns within one run, so that a busy moment of the machine "
        "meets all alike; the speed-up is the median of the ratios of paired rounds. Tokenization is counted. "
        f"{md.count(latency.threads, 'thread')}, batches of at most {latency.batch:,} tokens.",
        f"**Machine:** {machine.cpu}, {md.count(machine.cores, 'core')}, {machine.memory_gb:.0f} GB of memory, "
        f"{machine.platform}; instruction sets: {', '.join(machine.flags) or 'not known'}.",
        f"**Versions:** {versions}.",
    ]
    return f"## How it was measured\n\n{_points(points)}"


def _cost(report: RunReport) -> str:
    if not report.steps:
        return ""
    rows = [[step.name, md.duration(step.seconds), "yes" if step.reused else ""] for step in report.steps]
    rows.append(["total", md.duration(sum(step.seconds for step in report.steps)), ""])
    table = md.table(["Step", "Time", "Kept from an earlier run"], rows)
    return f"## Cost of the run\n\nWall time on the machine above.\n\n{table}"


def _limits(report: RunReport) -> str:
    queries = len(report.teacher.per_query)
    points = [
        f"The verdict holds for the {queries:,} test queries of {report.data.name} and queries like them. Other "
        "domains, languages and first stages were not measured: run the recipe on your own queries.",
        "Non-inferior does not mean equal. It rules out a mean loss of the margin or more, at the confidence given; a "
        f"smaller loss is possible, and single queries do lose. {verdicts.several(report)} The other metrics have no "
        "verdict.",
        "Speed was measured on one machine. Int8 gains most where the CPU has instructions for it (VNNI, AMX); on "
        "another CPU, or with other threads or lengths, even the order of the artefacts may change.",
        "An artefact's scores are not the teacher's: a threshold that was tuned on the teacher must be set again.",
        "A reranker orders what the first stage finds; what is missing there, it cannot bring back.",
    ]
    if queries < _FEW_QUERIES:
        points.insert(1, f"{queries} queries are few: the interval is rough, and another sample may turn the verdict.")
    return f"## Limits\n\n{_points(points)}"


def _points(points: list[str]) -> str:
    return "\n".join(f"- {point}" for point in points)


def _metric(report: RunReport) -> str:
    return METRIC_NAMES.get(report.primary_metric, report.primary_metric)


def _quality(quality: dict[str, float]) -> list[str]:
    return [_optional(quality, name) for name in ("ndcg@10", "mrr@10")]


def _optional(values: dict[str, float], name: str) -> str:
    return md.fixed(values[name]) if name in values else ""


def _interval(delta: Delta) -> str:
    return f"[{md.signed(delta.ci_low)}, {md.signed(delta.ci_high)}]"
