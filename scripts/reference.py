"""Write docs/recipe.md, docs/report.md and docs/cli.md from the docstrings of recipe, report and command line.

Run it after a change to hfcompress/recipe/, hfcompress/report/report.py or hfcompress/cli/:
python scripts/reference.py
"""

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path

import typer
from pydantic import BaseModel
from pydantic.fields import PydanticUndefined

from hfcompress import recipe
from hfcompress.cli import EXIT_CODES, app
from hfcompress.report import delta, explanation, fidelity, report, schema, speed, structure, zero_shot

DOCS = Path(__file__).parents[1] / "docs"
RECIPE = (
    recipe.Recipe,
    recipe.DataStep,
    recipe.SplitLimits,
    recipe.ScoreText,
    recipe.TeacherStep,
    recipe.ScoreLabel,
    recipe.TeacherTraining,
    recipe.PruneStep,
    recipe.VocabularyStep,
    recipe.WeightPruning,
    recipe.RecoverStep,
    recipe.ScoreSource,
    recipe.RayStep,
    recipe.DistillationLoss,
    recipe.FeatureLoss,
    recipe.QuantizationAware,
    recipe.Optimization,
    recipe.QuantizeStep,
    recipe.OnnxRuntimeInt8,
    recipe.OpenVinoInt8,
    recipe.PackedWeights,
    recipe.HalfPrecision,
    recipe.EvaluateStep,
    recipe.LongDocuments,
    recipe.PublishStep,
)
REPORT = (
    report.RunReport,
    report.Artifact,
    delta.Delta,
    speed.Latency,
    schema.Interval,
    speed.SingleThread,
    speed.ColdStart,
    speed.DeviceTeacher,
    report.Stability,
    report.Drift,
    report.FirstStage,
    report.Alternative,
    report.DataSummary,
    report.AlsoSummary,
    recipe.ScoreText,
    recipe.LongDocuments,
    structure.PruningSummary,
    structure.VocabularySummary,
    structure.SparsitySummary,
    structure.LayerKept,
    report.Step,
    report.Machine,
    explanation.Explanation,
    explanation.MovedQuery,
    explanation.RelevantDocument,
    explanation.SaliencyAgreement,
    explanation.MeanSaliencyAgreement,
    explanation.QueryGroup,
    fidelity.ScoreFidelity,
    fidelity.Threshold,
    fidelity.ThresholdDecisions,
    fidelity.Estimate,
    fidelity.ReliabilityBin,
    fidelity.ArtifactFidelity,
    fidelity.ScoreMap,
    fidelity.ScoreDrift,
    fidelity.ThresholdFidelity,
    zero_shot.ZeroShot,
    zero_shot.ZeroShotSet,
    zero_shot.VocabularyEffect,
    zero_shot.VocabularyLoss,
)
PAGES = {
    "recipe.md": (
        "# Recipe reference",
        "Written by `python scripts/reference.py` from `hfcompress/recipe/`. A recipe is a YAML mapping; unknown "
        "keys are errors. `--set section.key=value` replaces any of them on the command line, and `null` "
        "restores a default.",
        RECIPE,
    ),
    "report.md": (
        "# report.json",
        "Written by `python scripts/reference.py` from `hfcompress/report/`. A run writes this file; the "
        "model card is rendered from it alone. It holds ids and figures; texts only of the few queries in "
        "`explanation`, and only where the data set says that its licence lets them be shown.",
        REPORT,
    ),
}


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """Descriptions in the `Attributes` section of a docstring, by attribute."""
    _, _, section = (inspect.getdoc(model) or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): ((?:.+)(?:\n {8,}.+)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def kind(annotation: object) -> str:
    """A readable name of a type."""
    if isinstance(annotation, type):
        return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
            annotation.__name__, f"[{annotation.__name__}](#{annotation.__name__.lower()})"
        )
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is typing.Annotated:
        return kind(arguments[0])
    if origin is list:
        return f"list of {kind(arguments[0])}"
    if origin is dict:
        return f"{kind(arguments[1])} by {kind(arguments[0])}"
    return " or ".join(dict.fromkeys(kind(argument) for argument in arguments if argument is not type(None)))


def default(field: typing.Any) -> str:
    """The default in YAML."""
    if field.is_required():
        return "required"  # in a report: always there
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, BaseModel | list):
        return "its defaults"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


CLI_PAGE = "cli.md"
CLI_TITLE = """# Command line

Written by `python scripts/reference.py` from `hfcompress/cli/`. `hfcompress VERB --help` shows the same;
`hfcompress --install-completion` sets up completion in your shell. `optimum-cli compress VERB ...` takes the same
arguments."""


def verbs(command: typing.Any, name: str = "hfcompress") -> list[tuple[str, typing.Any]]:
    """Every verb with its full name, including those of groups."""
    found = []
    for key, inner in command.commands.items():
        found += verbs(inner, f"{name} {key}") if hasattr(inner, "commands") else [(f"{name} {key}", inner)]
    return found


def parameter_row(parameter: typing.Any) -> str:
    """A table row for an argument or option of a verb."""
    argument = parameter.param_type_name == "argument"
    names = f"`{parameter.name}`" if argument else ", ".join(f"`{name}`" for name in parameter.opts)
    names += "".join(f", `{name}`" for name in parameter.secondary_opts)
    value = parameter.default
    shown = (
        "required"
        if parameter.required
        else ""
        if value in (None, False, [], ())
        else f"`{str(value).lower() if value is True else value}`"
    )
    return f"| {names} | {shown} | {parameter.help} |"


def render_cli() -> str:
    """The page about the command line."""
    codes = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    parts = [CLI_TITLE, "## Exit codes", "\n".join(["| code | meaning |", "| ---: | --- |", *codes])]
    for name, verb in verbs(typer.main.get_command(app)):
        text, *examples = inspect.cleandoc(verb.help).split("Example: ")
        parts += [
            f"## {name}",
            text.strip(),
            "\n".join(["```bash", *(" ".join(each.split()) for each in examples), "```"]),
        ]
        shown = [parameter for parameter in verb.params if not (parameter.name == "help" or parameter.hidden)]
        rows = [parameter_row(parameter) for parameter in shown]
        parts.append("\n".join(["| | default | meaning |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def render(page: str) -> str:
    """One page, by its file name."""
    if page == CLI_PAGE:
        return render_cli()
    title, introduction, models = PAGES[page]
    parts = [title, introduction]
    for model in models:
        texts = attributes(model)
        summary = (inspect.getdoc(model) or "").splitlines()[0]
        rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        for name, field in model.model_fields.items():
            text = texts.get(name, "")
            rows.append(f"| `{name}` | {kind(field.annotation)} | {default(field)} | {text} |")
        parts += [f"## {model.__name__}", summary, "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    DOCS.mkdir(exist_ok=True)
    for page in (*PAGES, CLI_PAGE):
        (DOCS / page).write_text(render(page), encoding="utf-8")
