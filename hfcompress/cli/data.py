"""`hfcompress data`: inspect data, mine hard negatives, write built-in data sets."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hfcompress.cli import options
from hfcompress.cli.compare import check_runtime
from hfcompress.cli.terminal import out, start, write_json
from hfcompress.errors import DataError

if TYPE_CHECKING:
    from hfcompress.data.statistics import DatasetStatistics, Lengths
    from hfcompress.data.token_rates import TokenRate
    from hfcompress.evaluation.reading import ReadingCost

app = typer.Typer(help="Inspect data, mine hard negatives, write built-in data sets.", no_args_is_help=True)

DEVIATIONS = (0.05, 0.1, 0.2)  # shown beside the value of --deviation

Sets = Annotated[list[str], typer.Argument(help=options.DATA_HELP, show_default=False)]


@app.command()
def check(
    data: Sets,
    model: Annotated[str | None, typer.Option(help="Count tokens with this model's tokenizer.")] = None,
    max_length: options.MaxLength = None,
    candidates: options.Candidates = 20,
    max_queries: Annotated[int | None, typer.Option(min=1, help="Maximum number of queries per split.")] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Include queries without judgements.")] = False,
    margin: options.Margin = 0.01,
    deviation: Annotated[
        float, typer.Option(help="Assumed standard deviation of the per-query differences in nDCG@10.")
    ] = 0.18,
    power: Annotated[float, typer.Option(help="Desired probability of non-inferior for equally good models.")] = 0.8,
    json_file: options.Json = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show statistics, text lengths, leaks and duplicates of data, and how many queries a verdict needs.

    Example: hfcompress data check path/to/beir-folder --model out/quickstart --margin 0.01
    """
    from hfcompress.data.load import load_data
    from hfcompress.data.score_text import score_text_of
    from hfcompress.data.statistics import dataset_statistics, sample_pairs
    from hfcompress.data.token_rates import token_rates
    from hfcompress.evaluation.power import queries_needed
    from hfcompress.evaluation.reading import reading_cost
    from hfcompress.models.load import load_config
    from hfcompress.rankers.load import ranking_tokenizer
    from hfcompress.recipe import DataStep, SplitLimits

    console = start(json_file)
    for name, value, top in (("--margin", margin, 1), ("--deviation", deviation, 1), ("--power", power, 0.999)):
        if not 0 < value <= top:
            raise DataError(
                f"{name} is out of range", value=value, expected=f"above 0, at most {top}", remedy=f"correct {name}"
            )
    tokenizer = ranking_tokenizer(model, load_config(model)) if model else None
    if max_length and not model:
        raise DataError(
            "--max-length needs a model's tokenizer",
            value=max_length,
            expected="--model with --max-length",
            remedy="name a model, or leave out --max-length",
        )
    limits = SplitLimits(train=max_queries, dev=max_queries, test=max_queries)
    score_text = score_text_of(load_config(model)) if model else None
    step = DataStep(sets=data, candidates=candidates, max_queries=limits, score_text=score_text)
    loaded = load_data(step, not quiet, unlabelled)
    facts = dataset_statistics(loaded, tokenizer, max_length)
    cost, rates = None, []
    if tokenizer:
        pairs = sample_pairs(loaded)
        cost = reading_cost(pairs, tokenizer, max_length or tokenizer.model_max_length)
        rates = token_rates((text for pair in pairs for text in pair), tokenizer)
    needed = {str(each): queries_needed(margin, each, power) for each in sorted({deviation, *DEVIATIONS})}
    assumed = {"margin": margin, "power": power, "queries_by_assumed_deviation": needed}
    warnings = [*facts.warnings(), *filter(None, (rate.warning() for rate in rates))]
    write_json(json_file, _json(facts, assumed, cost, rates, warnings))
    _print(facts, console)
    if cost and cost.truncated_pairs:
        console.print(cost.in_words(), soft_wrap=True)
    if rates:
        console.print(_rates(facts.language, rates))
    test = facts.splits.get("test")
    console.print(
        f"Queries that a verdict needs at a margin of {margin:g}, for a power of {power:.0%}: "
        f"{needed[str(deviation)]:,} if the per-query differences in nDCG@10 have a standard deviation of {deviation:g}"
        f" ({', '.join(f'{count:,} at {each}' for each, count in needed.items() if each != str(deviation))}). That is "
        "an assumption: it depends on model, data and pruning; the report of a first run has the true value. "
        + (f"The test split has {test.labelled:,} queries that count." if test else ""),
        soft_wrap=True,
    )
    for warning in warnings:
        console.print(f"[bold yellow]note:[/] {escape(warning)}", soft_wrap=True)


@app.command()
def mine(
    data: Sets,
    model: Annotated[str, typer.Option(help="The teacher: a cross-encoder, as a folder or a Hub id.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Output folder: new, or from an earlier call.")],
    depth: Annotated[int, typer.Option(min=2, help="Documents that BM25 retrieves per query.")] = 50,
    negatives: Annotated[int, typer.Option(min=1, help="Maximum number of hard negatives per query.")] = 8,
    margin: Annotated[
        float, typer.Option(help="Minimum distance of a negative below the best relevant document, in logits.")
    ] = 0.0,
    max_length: options.MaxLength = None,
    max_queries: Annotated[int | None, typer.Option(min=1, help="Maximum number of train queries.")] = None,
    runtime: Annotated[str | None, typer.Option(help="torch, onnxruntime or openvino; torch by default.")] = None,
    device: options.Device = "auto",
    engine: options.Engine = "local",
    address: options.Address = None,
    workers: options.Workers = 0,
    cpus_per_worker: options.WorkerCpus = 1,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Mine hard negatives with BM25 and a teacher, and write the data with them to a folder for a recipe.

    Candidates whose teacher score is not at least the margin below the relevant document's are excluded. The same
    command continues after an interruption. Scores are reused if only the margin changes.

    Example: hfcompress data mine path/to/beir-folder --model path/to/cross-encoder --out out/mined --negatives 8
    """
    from hfcompress.cluster.connection import check_cluster, ray_settings
    from hfcompress.data.hard_negatives import check_mining, mine_hard_negatives
    from hfcompress.data.load import load_data
    from hfcompress.data.score_text import score_text_of
    from hfcompress.evaluation.ray_ranker import ray_ranker
    from hfcompress.models.load import load_config, model_fingerprint
    from hfcompress.rankers.load import load_ranker
    from hfcompress.recipe import DataStep, SplitLimits
    from hfcompress.utils.device import torch_device

    start()
    check_runtime(runtime)
    cluster = ray_settings(engine, address, workers, cpus_per_worker)
    if cluster:
        check_cluster(cluster)
    else:
        torch_device(device)
    step = DataStep(sets=data, candidates=depth, max_queries=SplitLimits(train=max_queries))
    loaded = load_data(step, not quiet)
    check_mining(loaded, out_folder)
    if settings := score_text_of(load_config(model)):
        loaded = loaded.with_score_text(settings)
    chosen = cast(Any, runtime or "torch")
    with (
        ray_ranker(cluster, model, chosen, max_length=max_length, device=device)
        if cluster
        else nullcontext(load_ranker(model, chosen, max_length=max_length, device=device))
    ) as teacher:
        mined = mine_hard_negatives(
            loaded,
            teacher,
            out_folder,
            name=model,
            fingerprint=f"{model_fingerprint(model)} on {chosen} at {max_length} tokens",
            depth=depth,
            negatives=negatives,
            margin=margin,
            progress=not quiet,
        )
    out.print(
        f"{mined.kept:,} hard negatives for {mined.queries:,} queries in {escape(str(out_folder))}, of {mined.scored:,}"
        f" scored pairs; {mined.copies:,} candidates repeated a text; {mined.too_close:,} scored too close to the "
        f"relevant document; {mined.short:,} queries have fewer than {mined.negatives}. "
        f"Next: data.sets: ['{escape(str(out_folder))}'] in a recipe.",
        soft_wrap=True,
    )


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="api-search or recommend.")],
    folder: Annotated[Path, typer.Argument(help="Output folder: new or empty.")],
    max_queries: Annotated[int | None, typer.Option(min=1, help="Maximum number of queries per split.")] = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a built-in data set to a folder in BEIR's layout.

    Example: hfcompress data build api-search out/api-search
    """
    from hfcompress.data.load import BUILT_IN, load_data
    from hfcompress.data.write import check_new, write_beir
    from hfcompress.recipe import DataStep, SplitLimits

    start()
    if name not in BUILT_IN:
        raise DataError(
            "There is no such built-in data set", value=name, expected=" or ".join(BUILT_IN), remedy="use one of these"
        )
    check_new(folder)
    limits = SplitLimits(train=max_queries, dev=max_queries, test=max_queries)
    loaded = load_data(DataStep(sets=[name], max_queries=limits), not quiet)
    write_beir(loaded, folder)
    counts = ", ".join(f"{len(split):,} {split_name}" for split_name, split in loaded.splits.items())
    out.print(f"{escape(str(folder))}: {len(loaded.corpus):,} documents, {counts} queries", soft_wrap=True)


def _json(
    facts: DatasetStatistics,
    verdict: dict[str, object],
    cost: ReadingCost | None,
    rates: list[TokenRate],
    warnings: list[str],
) -> str:
    import json

    found = {
        **facts.model_dump(mode="json"),
        "reading_cost": cost.model_dump(mode="json") if cost else None,
        "token_rates": [rate.model_dump(mode="json") for rate in rates],
        "verdict": verdict,
        "warnings": warnings,
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _rates(language: str, rates: list[TokenRate]) -> Table:
    """The table of tokens by language and script."""
    table = Table("Language", "Script", title="Tokens", title_justify="left")
    for name in ("texts", "tokens per", "", "unknown"):
        table.add_column(name, justify="right")
    for rate in rates:
        figures = f"{rate.texts:,}", rate.unit, f"{rate.tokens_per_unit:.2f}", f"{rate.unknown_share:.1%}"
        table.add_row(escape(language) or "not known", rate.script, *figures)
    return table


def _print(facts: DatasetStatistics, console: Console) -> None:
    known = [text for text in (facts.language and f"language {facts.language}", facts.license) if text]
    title = f"{facts.name}: {facts.documents:,} documents" + (f" ({'; '.join(known)})" if known else "")
    table = Table("", title=escape(title), title_justify="left")
    for name in facts.splits:
        table.add_column(name, justify="right")
    splits = facts.splits.values()
    grades = [", ".join(f"{grade}: {count:,}" for grade, count in split.grades.items()) for split in splits]
    table.add_row("queries", *(f"{split.queries:,}" for split in splits))
    table.add_row("with a relevant document", *(f"{split.labelled:,}" for split in splits))
    table.add_row("judgements by grade", *(listed or "none" for listed in grades))
    table.add_row("relevant per query", *(f"{split.relevant_per_query:.2f}" for split in splits))
    table.add_row("candidates per query", *(f"{split.candidates_per_query:.1f}" for split in splits))
    table.add_row("judged@10", *(f"{split.judged_at_10:.2f}" for split in splits))
    table.add_row("relevant among candidates", *(f"{split.relevant_listed:.2f}" for split in splits))
    console.print(table)
    console.print(
        f"Characters: queries {_lengths(facts.query_characters)}; documents {_lengths(facts.document_characters)}.",
        soft_wrap=True,
    )
    if found := facts.truncation:
        console.print(
            f"Tokens of {found.pairs:,} pairs: {_lengths(found.tokens)}; {found.share:.1%} are longer than "
            f"{found.max_length} and are truncated.",
            soft_wrap=True,
        )
    for note in facts.notes:
        console.print(escape(f"Read: {note}"), soft_wrap=True)


def _lengths(lengths: Lengths) -> str:
    return f"median {lengths.median:,.0f}, 95% up to {lengths.p95:,.0f}, longest {lengths.longest:,}"
