"""What would pass where the deployed model did not: a trial, by its differences on dev, and the folder to offer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from hfcompress.card.opening import would_pass
from hfcompress.compress.goal import Goal
from hfcompress.compress.trials import Trial
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.power import POWER
from hfcompress.models.layout import ALTERNATIVE_FOLDER, CARD_FILE
from hfcompress.report.report import Alternative, Artifact
from hfcompress.utils.files import replaced_folder, write_text

LIKELY = 0.5  # least probability of a trial that is worth naming


def find_alternative(
    trials: Sequence[Trial], goal: Goal, deployed: Artifact, unpruned: str, pruning_speedup: float | None
) -> Alternative | None:
    """The fastest trial that can be expected to pass, slower than the deployed model that did not.

    Without one, it is the trial that most probably passes, if that is more likely than not. A short recovery counts
    with speed and size of its model before it, which has the same structure.

    Args:
        trials: All trials.
        goal: The goal; what is larger than it asks for is no alternative.
        deployed: The model that was deployed, as measured on test.
        unpruned: Trial of the unpruned model in its form.
        pruning_speedup: Its speed-up by pruning, None if it is not pruned. What is pruned alike is no alternative.
    """
    one_shot = {each.pruning_speedup: each for each in trials if each.stage == "one-shot"}
    found = []
    for each in trials:
        exported = each if each.speedup else one_shot.get(each.pruning_speedup)
        same = each.name == unpruned if pruning_speedup is None else each.pruning_speedup == pruning_speedup
        if same or exported is None or each.delta is None or each.probability is None:
            continue
        assert exported.speedup is not None and exported.megabytes is not None
        speedup, size = exported.speedup, round(1e6 * exported.megabytes)
        if each.probability > LIKELY and speedup < deployed.speedup and goal.fits(size):
            found.append(Alternative(name=each.name, speedup=speedup, delta=each.delta, probability=each.probability))
    # At POWER and above, speed alone decides.
    return max(found, key=lambda each: (min(each.probability, POWER), each.speedup), default=None)


def offer(out: Path, alternative: Alternative | None, candidate: Candidate | None) -> Path | None:
    """Write the alternative into a folder of its own, with what a deployment needs; an earlier one is removed.

    It has no verdict: after the deployed model did not pass, a test of another one would be a second look at the test
    queries. So it is not measured there, and not published.

    Args:
        out: Output folder of `compress`.
        alternative: The trial that can be expected to pass.
        candidate: Its model in the form in which it was measured; None if it was not measured in that of a deployment.

    Returns:
        The folder, or None if there is nothing to offer.
    """
    target = out / ALTERNATIVE_FOLDER
    if alternative is None or candidate is None:
        shutil.rmtree(target, ignore_errors=True)
        return None
    source = Path(candidate.folder)
    settings = [path for path in source.iterdir() if path.is_file() and path.suffix != ".safetensors"]
    with replaced_folder(target) as folder:
        for path in dict.fromkeys([*candidate.files(), *settings]):
            copy = folder / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        other = "The folder above has the tested model and its card."
        text = f"# {alternative.name}\n\n{would_pass(alternative)}\n\n{other}\n"
        write_text(folder / CARD_FILE, text)
    return target
