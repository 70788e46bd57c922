"""The evaluation in sentences. They follow from the numbers; a loss is said as plainly as a gain."""

from dataclasses import dataclass

import pandas as pd

from orl_ldm.report.inputs import Evaluation
from orl_ldm.report.statistics import Change, changes, means_by_method, text, title
from orl_ldm.reward import TERMS, Term, weighted


def quality_terms() -> list[Term]:
    """The rewarded terms that measure an image, not its cost."""
    return [TERMS[name] for name in weighted() if name != "nfe"]


def summary(evaluation: Evaluation, intervals: pd.DataFrame) -> list[str]:
    """The page's first paragraph, one sentence per entry. `intervals` is from tables.steered_intervals."""
    roles = evaluation.roles
    images, scenes = evaluation.per_image["image"].nunique(), evaluation.per_image["scene"].nunique()
    kind = f" ({evaluation.inputs[0]} input)" if evaluation.inputs[0] else ""
    where = f"{images} test {_plural(images, 'image')} of {scenes} {_plural(scenes, 'scene')}{kind}"
    if "steered" not in roles:
        return [f"On {where}: no steered policy was evaluated, so the tables compare the other methods only."]
    means = means_by_method(evaluation.per_image)
    steered = means[roles["steered"]]
    sentences = [
        f"On {where}, the learned policy steers the frozen LDM to "
        f"{_join([_value(term, steered[term.name]) for term in quality_terms()])}, with "
        f"{steered['nfe']:.1f} denoiser calls (NFE) per image."
    ]
    if evaluation.facts.get("same_ldm_as_learned") is False:
        sentences.append("The policy was trained with another LDM than the one that it steers here.")
    if "alone" in roles:
        calls = means[roles["alone"]]["nfe"]
        against_alone = quality(against(intervals, roles["alone"]))
        sentences.append(f"Against the LDM alone ({calls:.0f} calls per image), {against_alone}.")
    if "bicubic" in roles:
        sentences.append(f"Against bicubic interpolation, {quality(against(intervals, roles['bicubic']))}.")
    if "fixed" in roles:
        sentences.append(_against_fixed(evaluation, against(intervals, roles["fixed"])["reward"]))
    else:
        sentences.append("No best fixed schedule was searched for, so what learning adds to one is not known.")
    return [*sentences, _rank(evaluation, means)]


def against(intervals: pd.DataFrame, reference: str) -> dict[str, Change]:
    """Column -> the steered policy's change against one reference."""
    return changes(intervals[intervals["reference"] == reference])


def quality(change: dict[str, Change]) -> str:
    """In which quality terms the steered policy is better, worse, or not clearly different."""
    verdicts = {"gain": "better in", "loss": "worse in", "": "not clearly different in"}
    groups = []
    for mark, verdict in verdicts.items():
        alike = [change[term.name] for term in quality_terms() if change[term.name].mark == mark]
        names = [f"{c.term.label} ({f'{c.text} {c.term.unit}'.strip()})" for c in alike]
        groups += [f"{verdict} {_join(names)}"] if names else []
    return f"it is {'; '.join(groups)}"


def _against_fixed(evaluation: Evaluation, reward: Change) -> str:
    """The comparison that a learned policy must win: its reward against the best fixed control's."""
    episodes = evaluation.facts.get("search_episodes")
    search = f", found in a search over {episodes:,} episodes" if isinstance(episodes, int) else ""
    outcome = {
        "gain": "so here the learned policy beats it",
        "loss": "so here the fixed control is the better choice",
        "": "so these images do not show that learning adds anything to it",
    }[reward.mark]
    return (
        f"Against the {evaluation.roles['fixed']}{search}, its reward ({evaluation.setting}) differs by {reward.text} "
        f"(95% interval {reward.interval}) and it is better on {reward.won:.0%} of the images, {outcome}."
    )


def _rank(evaluation: Evaluation, means: dict[str, dict[str, float]]) -> str:
    """Whether any other method has a higher mean reward; the ceiling, which sees the HR image, does not count."""
    rivals = {name: mean["reward"] for name, mean in means.items() if name != evaluation.roles.get("ceiling")}
    own = rivals[evaluation.roles["steered"]]
    above = sorted((name for name in rivals if rivals[name] > own), key=lambda name: -rivals[name])
    if not above:
        return f"No other method in this evaluation has a higher mean reward than its {own:.4f}."
    return f"Its mean reward is {own:.4f}; higher: {_join([f'{name} ({rivals[name]:.4f})' for name in above])}."


@dataclass(frozen=True)
class Tile:
    """A headline number: the steered policy's mean, and how it compares with the LDM alone's."""

    label: str
    value: str
    against: str
    mark: str


def tiles(evaluation: Evaluation, intervals: pd.DataFrame) -> list[Tile]:
    """The weighted terms of the steered policy beside the LDM alone's; none when one of the two is missing."""
    roles = evaluation.roles
    if "steered" not in roles or "alone" not in roles:
        return []
    means, change = means_by_method(evaluation.per_image), against(intervals, roles["alone"])
    steered, alone = means[roles["steered"]], means[roles["alone"]]
    return [
        Tile(title(t), text(t, steered[t.name]), f"LDM alone {text(t, alone[t.name])}", change[t.name].mark)
        for t in (TERMS[name] for name in weighted())
    ]


def verdict_lines(evaluation: Evaluation, intervals: pd.DataFrame) -> list[str]:
    """For the terminal: the steered policy against the LDM alone and against the best fixed schedule."""
    lines = []
    for role, name in (("alone", "LDM alone"), ("fixed", evaluation.roles.get("fixed", ""))):
        if "steered" not in evaluation.roles or role not in evaluation.roles:
            continue
        change = against(intervals, evaluation.roles[role])
        shown = (change[name] for name in (*(term.name for term in quality_terms()), "reward"))
        lines.append(f"steered against {name}: {'; '.join(f'{c.term.label} {c.text} {c.interval}' for c in shown)}")
    return lines


def _value(term: Term, value: float) -> str:
    """A mean in a sentence: "27.91 dB PSNR", "0.238 LPIPS (lower is better)"."""
    lower = "" if term.higher_is_better else " (lower is better)"
    return f"{text(term, value)} {f'{term.unit} {term.label}'.strip()}{lower}"


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
