"""run(recipe, out): a reader follows one run from top to bottom here."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from transformers import set_seed

from hfcompress.card import write_card
from hfcompress.checks import check, check_data, judges
from hfcompress.evaluation.report import RunReport
from hfcompress.evaluation.results import license_for
from hfcompress.files import replaced_file, write_text
from hfcompress.layout import PACKED_FOLDER, STRUCTURE_FILE, WORK_FOLDER
from hfcompress.markdown import duration
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.recipe import Recipe
from hfcompress.run_data import load_run_data
from hfcompress.steps.base import Run, stages
from hfcompress.steps.evaluate import evaluate
from hfcompress.steps.prune import prune
from hfcompress.steps.quantize import quantize
from hfcompress.steps.recover import recover, score
from hfcompress.steps.teacher import judge, train_teacher
from hfcompress.workspace import Workspace


def run(
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> RunReport:
    """Run a recipe and write the compressed checkpoint, its int8 files, the report and the card into `out`.

    Args:
        recipe: What to do.
        out: The output folder, new or empty, or that of an earlier run with `resume`.
        resume: Keep the finished steps of an earlier run whose inputs are the same.
        progress: Show progress bars.
        say: Called with a line for the user.

    Returns:
        The report, as written to `report.json`.

    Raises:
        HfCompressError: Something that the user can mend; found before long work starts where that is possible.
    """
    workspace = Workspace(out, resume, say)
    check(recipe)
    data = load_run_data(recipe, progress)
    check_data(recipe, data)
    workspace.begin()
    say(f"data: {', '.join(f'{len(split)} {name}' for name, split in data.splits.items())} queries of {data.name}")
    current, preview = Run(recipe, data, workspace, progress), workspace.preview()
    do_steps(replace(current, workspace=preview))
    for line in preview.lines(out):
        say(line)
    set_seed(recipe.seed)
    start = time.perf_counter()
    checkpoint, measured = do_steps(current)
    told = {"steps": workspace.steps, "recipe": recipe.text, "license": license_for(recipe)}
    report = RunReport.load(measured).model_copy(update=told)
    publish_locally(out, checkpoint, report)
    say(f"card: {out / 'README.md'}, finished in {duration(time.perf_counter() - start)}")
    return report


def do_steps(current: Run) -> tuple[Path, Path]:
    """Do the steps of a run, or with a preview for a workspace find out what they are.

    Returns:
        The folders with the checkpoint and with the report.
    """
    teacher, teacher_of = train_teacher(current)
    if judges(current.recipe, current.data):
        current = judge(current, teacher, teacher_of)
    student, made_of, pruned = teacher, teacher_of, []
    lists = None
    for stage in stages(current.recipe):
        student, made_of = prune(current, student, made_of, stage)
        pruned.append(student)
        if current.recipe.recover:
            lists = lists or score(current, teacher, teacher_of)
            student, made_of = recover(current, teacher, lists, student, made_of, stage)
    checkpoint, made_of = quantize(current, student, made_of)
    return checkpoint, evaluate(current, teacher, checkpoint, pruned, made_of)


def publish_locally(out: Path, checkpoint: Path, report: RunReport) -> None:
    """Put the checkpoint, the report and the card into the output folder, with the report's recipe everywhere."""
    for source in sorted(checkpoint.rglob("*")):
        if source.is_file():
            with replaced_file(out / source.relative_to(checkpoint)) as aside:
                shutil.copyfile(source, aside)
    # A kept checkpoint may be of a recipe that differs in what its files do not depend on, such as the margin.
    config = RankerCompressionConfig.from_pretrained(checkpoint)
    config.recipe = Recipe.from_yaml(report.recipe).model_dump(mode="json")
    write_text(out / RankerCompressionConfig.CONFIG_NAME, config.to_json_string())
    stale = [path for path in out.rglob("*") if _is_stale(path, out, checkpoint)]
    for path in stale:
        path.unlink()
    report.save(out)
    write_card(out, report)


def _is_stale(path: Path, out: Path, checkpoint: Path) -> bool:
    """Whether an earlier run left this file of the repository layout and this one did not write it, or not yet."""
    relative = path.relative_to(out)
    ours = relative.parts[0] in ("onnx", "openvino", PACKED_FOLDER, "modeling_hfcompress.py")
    return (
        path.is_file()
        and (ours or relative.as_posix() == STRUCTURE_FILE)  # the card draws it again where something was pruned
        and WORK_FOLDER not in relative.parts
        and not (checkpoint / relative).is_file()
    )
