"""`hfcompress data`: look at data, mine hard negatives, write what is built in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hfcompress.cli.compare import check_runtime
from hfcompress.cli.terminal import DATA_HELP, Debug, Json, Quiet, console_for, out, write_json
from hfcompress.errors import DataError

if TYPE_CHECKING:
    from hfcompress.data.check import DataFacts, Lengths

app = typer.Typer(help="Look at data, mine hard negatives, write built-in sets.", no_args_is_help=True)

DEVIATIONS = (0.05, 0.1, 0.2)  # shown beside the one that is asked for

Sets = Annotated[list[str], typer.Argument(help=DATA_HELP, show_default=False)]


@app.command()
def check(
    data: Sets,
    model: Annotated[str | None, typer.Option(help="Count tokens as this model's tokenizer does.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Longest input in tokens; the model's by default.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Documents to rank for a query.")] = 20,
    max_queries: Annotated[int | None, typer.Option(min=1, help="At most so many queries of each split.")] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Take queries without judgements too.")] = False,
    margin: Annotated[float, typer.Option(help="Largest loss in nDCG@10 that counts as ranking as well.")] = 0.01,
    deviation: Annotated[
        float, typer.Option(help="Assumed standard deviation of the per-query differences in nDCG@10.")
    ] = 0.18,
    power: Annotated[float, typer.Option(help="Wanted probability that equal models are found non-inferior.")] = 0.8,
    json_file: Json = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what data holds, its lengths, leaks and duplicates, and how many queries a verdict needs.

    Example: hfcompress data check path/to/beir-folder --model out/quickstart --margin 0.01
    """
    from hfcompress.data.check import facts_of
    from hfcompress.data.load import load_data
    from hfcompress.data.score_text import score_text_of
    from hfcompress.evaluation.significance import queries_needed
    from hfcompress.models import load_config, load_tokenizer, position_limit
    from hfcompress.quiet import silence_libraries
    from hfcompress.recipe import DataStep, SplitLimits

    silence_libraries()
    console = console_for(json_file)
    for name, value, top in (("--margin", margin, 1), ("--deviation", deviation, 1), ("--power", power, 0.999)):
        if not 0 < value <= top:
            raise DataError(
                f"{name} does not fit", value=value, expected=f"a number above 0, up to {top}", remedy=f"correct {name}"
            )
    tokenizer = load_tokenizer(model) if model else None
    if tokenizer is not None and model:
        max_length = max_length or min(tokenizer.model_max_length, position_limit(load_config(model)))
    elif max_length:
        raise DataError(
            "--max-length counts the tokens of a model",
            value=max_length,
            expected="--model with it",
            remedy="name a model, or leave out --max-length",
        )
    limits = SplitLimits(train=max_queries, dev=max_queries, test=max_queries)
    score_text = score_text_of(load_config(model)) if model else None
    step = DataStep(sets=data, candidates=candidates, max_queries=limits, score_text=score_text)
    facts = facts_of(load_data(step, not quiet, unlabelled), tokenizer, max_length)
    needed = {str(each): queries_needed(margin, each, power) for each in sorted({deviation, *DEVIATIONS})}
    assumed = {"margin": margin, "power": power, "queries_by_assumed_deviation": needed}
    write_json(json_file, _json(facts, assumed))
    _print(facts, console)
    test = facts.splits.get("test")
    console.print(
        f"Queries that a verdict needs at a margin of {margin:g}, for a power of {power:.0%}: "
        f"{needed[str(deviation)]:,} if the per-query differences in nDCG@10 have a standard deviation of {deviation:g}"
        f" ({', '.join(f'{count:,} at {each}' for each, count in needed.items() if each != str(deviation))}). That is "
        "an assumption: it depends on model, data and how much is cut; a first run's report has the true one. "
        + (f"Test has {test.labelled:,} that count." if test else ""),
        soft_wrap=True,
    )
    for warning in facts.warnings():
        console.print(f"[bold yellow]note:[/] {escape(warning)}", soft_wrap=True)


@app.command()
def mine(
    data: Sets,
    model: Annotated[str, typer.Option(help="The teacher: a cross-encoder, as a folder or Hub id.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write; new, or of an earlier call.")],
    depth: Annotated[int, typer.Option(min=2, help="Documents that BM25 retrieves for a query.")] = 50,
    negatives: Annotated[int, typer.Option(min=1, help="Hard negatives of a query at most.")] = 8,
    margin: Annotated[
        float, typer.Option(help="How far below the best relevant document a negative scores, in logits.")
    ] = 0.0,
    max_length: Annotated[int | None, typer.Option(min=8, help="Longest input in tokens.")] = None,
    max_queries: Annotated[int | None, typer.Option(min=1, help="At most so many train queries.")] = None,
    runtime: Annotated[str | None, typer.Option(help="torch, onnxruntime or openvino; torch by default.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Mine hard negatives with BM25 and a teacher, and write the data with them as a folder that a recipe reads.

    Candidates that the teacher scores as high as the relevant document, less the margin, are left out. The same command
    goes on after an interruption; with another margin it scores nothing again.

    Example: hfcompress data mine path/to/beir-folder --model path/to/cross-encoder --out out/mined --negatives 8
    """
    from hfcompress.data.load import load_data
    from hfcompress.data.mine import check_mine
    from hfcompress.data.mine import mine as mine_data
    from hfcompress.data.score_text import score_text_of, with_score_text
    from hfcompress.models import load_config, model_fingerprint
    from hfcompress.quiet import silence_libraries
    from hfcompress.rankers.load import load_ranker
    from hfcompress.recipe import DataStep, SplitLimits

    silence_libraries()
    check_runtime(runtime)
    step = DataStep(sets=data, candidates=depth, max_queries=SplitLimits(train=max_queries))
    loaded = load_data(step, not quiet)
    check_mine(loaded, out_folder)
    if settings := score_text_of(load_config(model)):
        loaded = with_score_text(loaded, settings)
    teacher = load_ranker(model, runtime or "torch", max_length=max_length)  # type: ignore[arg-type]
    mined = mine_data(
        loaded,
        teacher,
        out_folder,
        name=model,
        fingerprint=f"{model_fingerprint(model)} on {runtime or 'torch'} at {max_length} tokens",
        depth=depth,
        negatives=negatives,
        margin=margin,
        progress=not quiet,
    )
    out.print(
        f"{mined.kept:,} hard negatives for {mined.queries:,} queries in {escape(str(out_folder))}, of {mined.scored:,}"
        f" scored pairs; {mined.too_close:,} candidates were too close to the relevant document; {mined.short:,} "
        f"queries have fewer than {mined.negatives}. Next: data.sets: ['{escape(str(out_folder))}'] in a recipe.",
        soft_wrap=True,
    )


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="api-search or recommend.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    max_queries: Annotated[int | None, typer.Option(min=1, help="At most so many queries of each split.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a built-in data set as a folder in BEIR's layout.

    Example: hfcompress data build api-search out/api-search
    """
    from hfcompress.data.load import BUILT_IN, load_data
    from hfcompress.data.write import check_new, write_beir
    from hfcompress.quiet import silence_libraries
    from hfcompress.recipe import DataStep, SplitLimits

    silence_libraries()
    if name not in BUILT_IN:
        raise DataError(
            "There is no such built-in data set", value=name, expected=" or ".join(BUILT_IN), remedy="name one of these"
        )
    check_new(folder)
    limits = SplitLimits(train=max_queries, dev=max_queries, test=max_queries)
    loaded = load_data(DataStep(sets=[name], max_queries=limits), not quiet)
    write_beir(loaded, folder)
    counts = ", ".join(f"{len(split):,} {split_name}" for split_name, split in loaded.splits.items())
    out.print(f"{escape(str(folder))}: {len(loaded.corpus):,} documents, {counts} queries", soft_wrap=True)


def _json(facts: DataFacts, verdict: dict[str, object]) -> str:
    import json

    found = {**facts.model_dump(mode="json"), "verdict": verdict, "warnings": facts.warnings()}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _print(facts: DataFacts, console: Console) -> None:
    known = [text for text in (facts.language and f"language {facts.language}", facts.license) if text]
    title = f"{facts.name}: {facts.documents:,} documents" + (f" ({'; '.join(known)})" if known else "")
    table = Table(title=escape(title), title_justify="left")
    rows: dict[str, list[str]] = {
        name: []
        for name in (
            "queries",
            "with a relevant document",
            "judgements by grade",
            "relevant a query",
            "candidates a query",
            "judged@10",
            "relevant among candidates",
        )
    }
    table.add_column("")
    for name, split in facts.splits.items():
        table.add_column(name, justify="right")
        values = (
            f"{split.queries:,}",
            f"{split.labelled:,}",
            ", ".join(f"{grade}: {count:,}" for grade, count in split.grades.items()) or "none",
            f"{split.relevant_per_query:.2f}",
            f"{split.candidates_per_query:.1f}",
            f"{split.judged_at_10:.2f}",
            f"{split.relevant_listed:.2f}",
        )
        for row, value in zip(rows.values(), values, strict=True):
            row.append(value)
    for row_name, row in rows.items():
        table.add_row(row_name, *row)
    console.print(table)
    console.print(
        f"Characters: queries {_lengths(facts.query_characters)}; documents {_lengths(facts.document_characters)}.",
        soft_wrap=True,
    )
    if found := facts.truncation:
        console.print(
            f"Tokens of {found.pairs:,} pairs: {_lengths(found.tokens)}; {found.share:.1%} are longer than "
            f"{found.max_length} and are cut.",
            soft_wrap=True,
        )
    for note in facts.notes:
        console.print(escape(f"Read: {note}"), soft_wrap=True)


def _lengths(lengths: Lengths) -> str:
    return f"median {lengths.median:,.0f}, 95% up to {lengths.p95:,.0f}, longest {lengths.longest:,}"
