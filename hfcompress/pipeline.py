"""run(recipe, out): the whole run, from top to bottom."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from transformers import set_seed

from hfcompress.card import write_card
from hfcompress.card.zero_shot import warning as zero_shot_warning
from hfcompress.evaluation.metrics import judged_queries
from hfcompress.evaluation.power import planned_verdict
from hfcompress.evaluation.results import license_for
from hfcompress.models.layout import CARD_FIGURES, HEAD_FILES, PACKED_FOLDER, WORK_FOLDER, matches
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.recipe import Recipe
from hfcompress.report.report import RunReport
from hfcompress.steps.calibrate import calibrate
from hfcompress.steps.checks import check, check_also, check_data, check_zero_shot, grades_by_teacher
from hfcompress.steps.context import RunContext, runnable, stages
from hfcompress.steps.evaluate import choose_sequence, evaluate
from hfcompress.steps.inputs import load_run_also, load_run_data, load_zero_shot
from hfcompress.steps.prune import prune
from hfcompress.steps.quantize import quantize
from hfcompress.steps.recover import recover, score
from hfcompress.steps.teacher import grade_by_teacher, obtain_teacher
from hfcompress.steps.workspace import StepFolder, StepModel, Workspace
from hfcompress.steps.zero_shot import load_result, zero_shot
from hfcompress.utils.files import replaced_file, write_text
from hfcompress.utils.log import lines_to
from hfcompress.utils.machine import limited_torch_threads
from hfcompress.utils.text import duration

logger = logging.getLogger(__name__)


@limited_torch_threads()
def run(
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> RunReport:
    """Run a recipe and write the compressed checkpoint, its int8 files, the report and the card into `out`.

    Args:
        recipe: The recipe.
        out: Output folder: new or empty, or that of an earlier run with `resume`.
        resume: Keep the steps of an earlier run whose inputs are unchanged.
        progress: Show progress bars.
        say: Deprecated: gets a line for each step. The lines are INFO records of the `hfcompress` logger.

    Returns:
        The report, as written to `report.json`.

    Raises:
        HfCompressError: A fault that the user can mend; found before long work starts where possible.
    """
    if say is not None:
        warnings.warn("run(say=...) is deprecated: the logger 'hfcompress' has the lines", FutureWarning, stacklevel=2)
        with lines_to(say):
            return run(recipe, out, resume, progress)
    workspace = Workspace(out, resume)
    check(recipe)
    data = load_run_data(recipe, progress)
    check_data(recipe, data)
    outside = load_zero_shot(recipe, data, progress)
    check_zero_shot(data, outside)
    also = load_run_also(recipe, data, progress)
    check_also(recipe, also)
    workspace.begin()
    logger.info(
        f"data: {', '.join(f'{len(split)} {name}' for name, split in data.splits.items())} queries of {data.name}"
    )
    context, preview = RunContext(recipe, data, workspace, progress, also, outside), workspace.preview()
    do_steps(replace(context, workspace=preview))
    for line in preview.lines(out):
        logger.info(line)
    if len(runnable(recipe.quantize.artifacts)) < len(recipe.quantize.artifacts):
        logger.info("int8: leaves out OpenVINO, which is not installed (pip install 'hfcompress[openvino]')")
    if not grades_by_teacher(recipe, data):
        step = recipe.evaluate
        logger.info(f"verdict: {planned_verdict(judged_queries(data, 'test'), step.margin, step.confidence)}")
    set_seed(recipe.seed)
    start = time.perf_counter()
    checkpoint, report_folder, zero_shot_folder = do_steps(context)
    metadata = {
        "steps": workspace.steps,
        "recipe": recipe.text,
        "license": license_for(recipe),
        "zero_shot": load_result(zero_shot_folder) if zero_shot_folder else None,
    }
    report = RunReport.load(report_folder).model_copy(update=metadata)
    publish_locally(out, checkpoint, report)
    if words := zero_shot_warning(report):
        logger.warning(f"zero-shot: {words}")
    logger.info(f"card: {out / 'README.md'}, finished in {duration(time.perf_counter() - start)}")
    return report


def do_steps(context: RunContext) -> tuple[Path, Path, Path | None]:
    """Run the steps of a run, or list them where the workspace is a preview.

    Returns:
        The folder of the checkpoint, that of the report, and that of the zero-shot results if the run has such sets.
    """
    context, teacher, pruned, checkpoint = make(context)
    sequence = choose_sequence(context, teacher, checkpoint)
    evaluated = evaluate(context, teacher, checkpoint, pruned, sequence)
    if not context.zero_shot:
        return checkpoint.path, evaluated.path, None
    return checkpoint.path, evaluated.path, zero_shot(context, teacher, checkpoint, sequence, evaluated).path


def make(context: RunContext) -> tuple[RunContext, StepModel, list[StepModel], StepFolder]:
    """Do the steps of a run that make its artifacts, before any is evaluated.

    Returns:
        The run with all its judgements, the teacher, the pruned model of each stage, and the student with its graphs.
    """
    teacher = obtain_teacher(context)
    if grades_by_teacher(context.recipe, context.data):
        context = grade_by_teacher(context, teacher)
    student, pruned, lists = teacher, [], None
    for stage in stages(context.recipe):
        student = prune(context, student, stage)
        pruned.append(student)
        if context.recipe.recover:
            lists = lists or score(context, teacher)
            student = recover(context, teacher, lists, student, stage)
    return context, teacher, pruned, calibrate(context, teacher, quantize(context, student))


def publish_locally(out: Path, checkpoint: Path, report: RunReport) -> None:
    """Copy the checkpoint into the output folder and write report and card, all with the recipe of the report."""
    for source in sorted(checkpoint.rglob("*")):
        if source.is_file():
            with replaced_file(out / source.relative_to(checkpoint)) as temporary:
                shutil.copyfile(source, temporary)
    # The recipe of a kept checkpoint may differ in settings that its files do not depend on, such as the margin.
    config = RankerCompressionConfig.from_pretrained(checkpoint)
    config.recipe = Recipe.from_yaml(report.recipe).model_dump(mode="json")
    write_text(out / RankerCompressionConfig.CONFIG_NAME, config.to_json_string())
    stale = [path for path in out.rglob("*") if _is_stale(path, out, checkpoint)]
    for path in stale:
        path.unlink()
    report.save(out)
    write_card(out, report)


def _is_stale(path: Path, out: Path, checkpoint: Path) -> bool:
    """Whether this file of the repository layout is from an earlier run and not of this checkpoint."""
    relative = path.relative_to(out)
    ours = relative.parts[0] in ("onnx", "openvino", PACKED_FOLDER, "modeling_hfcompress.py")
    ours = ours or matches(relative.as_posix(), HEAD_FILES)
    return (
        path.is_file()
        and (ours or relative.as_posix() in CARD_FIGURES)  # the card draws again what the report has
        and WORK_FOLDER not in relative.parts
        and not (checkpoint / relative).is_file()
    )
