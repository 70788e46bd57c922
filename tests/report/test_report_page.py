"""The page and the tables: complete, self-contained, escaped, and honest about what is missing or lost."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from fake_evaluation import ALONE, METHODS, ROLES, SCENES, write_evaluation, write_training
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from orl_ldm.actions import ACTIONS
from orl_ldm.errors import UserError
from orl_ldm.report import build_report, figures, fonts, print_table, write_tables
from orl_ldm.report.inputs import read_evaluation
from orl_ldm.report.page import accepted
from orl_ldm.report.style import Theme, save_both
from orl_ldm.report.tables import steered_intervals
from orl_ldm.report.words import summary
from orl_ldm.reward import SETTINGS, TERMS, Term

EVIL = "<script>alert(1)</script>|[red]$x_$\"'"


class Links(HTMLParser):
    """Every tag and every attribute of a page that could load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with its page."""
    root = tmp_path_factory.mktemp("report")
    folder = write_evaluation(root / "evaluate", examples=3)
    assert build_report(folder, write_training(root / "train")) == folder / "report.html"
    return folder


def test_the_accepted_checkpoint_is_shown_with_its_replay_under_the_weights_of_its_training(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", examples=0)
    facts = json.loads((folder / "facts.json").read_text())
    choice = {"epoch": 8, "reward": 0.71, "low": 0.7, "high": 0.72, "behavior": 0.65, "why": "the highest bound"}

    def sentence(preferred: dict[str, float], **policy: object) -> str:
        content = {**facts, "weights": preferred, "policy": {**facts["policy"], "accepted": choice, **policy}}
        (folder / "facts.json").write_text(json.dumps(content))
        return accepted(read_evaluation(folder))

    table = pd.read_csv(folder / "per_image.csv")
    steered = table[table["method"] == "steered"]
    shown = sentence(facts["weights"])
    assert "that of epoch 8: the highest bound, estimated at 0.7100 [0.7000, 0.7200]" in shown
    assert f"Its replay on the test images gave {steered['reward'].mean():.4f}." in shown
    preferred = {"psnr": 0.0, "ssim": 0.0, "lpips": 0.0, "nfe": 1.0}
    shown = sentence(preferred, setting="paper", weights=SETTINGS["paper"])
    assert f"Its replay on the test images gave {steered['reward_paper'].mean():.4f}." in shown
    assert "replay" not in sentence(preferred, setting="custom", weights={**preferred, "psnr": 0.5})


def test_the_page_shows_estimates_of_checkpoints_beside_their_replay(tmp_path: Path) -> None:
    folder, train = write_evaluation(tmp_path / "evaluate", 8, examples=0), write_training(tmp_path / "train")
    (train / "ope").mkdir()
    names = ("fqe", "wis", "replay")
    columns = {f"{name}{end}": [0.7, 0.71, 0.72] for name in names for end in ("", "_low", "_high")}
    table = pd.DataFrame({"checkpoint": ["e1", "e2<b>", "e3"], **columns, "wis_effective_episodes": [9.0, 5, 2]})
    table.to_csv(train / "ope" / "ope.csv", index=False)
    rho = {"replayed_images": 17, "spearman": {"fqe": 0.95, "wis": -0.25}}
    (train / "ope" / "ope.json").write_text(json.dumps(rho))
    page = build_report(folder, train).read_text(encoding="utf-8")
    assert "on 17 training images that nothing was learned from" in page and "e2&lt;b&gt;" in page
    assert (folder / "figures" / "checkpoints.png").exists()
    (train / "ope" / "ope.json").write_text("{")
    with pytest.raises(UserError, match="run orl-ldm ope again"):
        build_report(folder, train)


def test_a_new_term_and_a_new_action_need_no_edit_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 8, examples=1)
    monkeypatch.setitem(TERMS, "edges", Term("edges", "edge error", "%", 1, False, lambda x, nfe_max: 1 - x))
    monkeypatch.setitem(ACTIONS, "sharpen", replace(ACTIONS["detail"], name="sharpen", label="gain on edges"))
    for file, column in (("per_image.csv", "edges"), ("actions.csv", "sharpen")):
        table = pd.read_csv(folder / file)
        table.assign(**{column: 12.34}).to_csv(folder / file, index=False)
    index = json.loads((folder / "examples" / "index.json").read_text())
    index[0]["columns"][0]["edges"] = 56.78
    (folder / "examples" / "index.json").write_text(json.dumps(index))
    tables = {name: path.read_text(encoding="utf-8") for name, path in write_tables(folder).items()}
    assert "edge error (%)" in tables["table.md"] and "| 12.3 |" in tables["table.md"]
    assert "12.3 → 12.3" in tables["table_by_scene.md"] and "edge error (%)" in tables["intervals.md"]
    page = build_report(folder, None).read_text(encoding="utf-8")
    assert "12.3 % edge error (lower is better)" in page and "edge error 56.8 %" in page
    assert "<dt>sharpen</dt><dd>gain on edges; plain DDIM: 1.0</dd>" in page


def with_inputs(folder: Path, *kinds: str) -> pd.DataFrame:
    """An evaluation's images once more for each kind of input; LPIPS and rewards shifted from one to the next."""
    table = pd.read_csv(folder / "per_image.csv")
    frames = [table.assign(input=kind, reward=table["reward"] - 0.1 * i) for i, kind in enumerate(kinds)]
    both = pd.concat(frames)
    both.to_csv(folder / "per_image.csv", index=False)
    return both


def test_one_kind_of_input_is_as_none(tmp_path: Path) -> None:
    plain = write_evaluation(tmp_path / "plain", 8, examples=0)
    named = write_evaluation(tmp_path / "named", 8, examples=0)
    with_inputs(named, "bicubic")
    first, second = ({name: path.read_text() for name, path in write_tables(f).items()} for f in (plain, named))
    assert first == second


def test_each_kind_of_input_has_its_own_tables_and_intervals(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 8, examples=0)
    table = with_inputs(folder, "bicubic", "jpeg75 <b>")
    files = write_tables(folder)
    means = table.groupby(["input", "method"])["reward"].mean()
    for name in ("table.csv", "table_by_scene.csv", "intervals.csv"):
        assert set(pd.read_csv(files[name])["input"]) == {"bicubic", "jpeg75 <b>"}
    assert files["table.md"].read_text().count("## Input: ") == 2
    assert files["table_by_scene.md"].read_text().count("## Input: ") == 2
    steered = next(line for line in files["table_by_input.md"].read_text().splitlines() if "| steered" in line)
    shown = [cell.strip("* ") for cell in steered.split("|")[2:4]]
    assert shown == [f"{means[kind, 'steered']:.4f}" for kind in ("bicubic", "jpeg75 <b>")]
    assert pd.read_csv(files["table_by_input.csv"]).columns.tolist() == ["method", "bicubic", "jpeg75 <b>"]
    page = build_report(folder, None).read_text(encoding="utf-8")
    assert page.count("<h3>Input: jpeg75 &lt;b&gt;</h3>") == 3 and "Mean reward by input" in page
    assert "On 8 test images of 8 scenes (bicubic input)" in page
    output = StringIO()
    print_table(folder, Console(file=output, width=200))
    assert "Input: bicubic" in output.getvalue() and "mean reward by input" in output.getvalue()


def test_an_image_twice_under_one_input_is_refused(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 8, examples=0)
    with_inputs(folder, "jpeg75", "jpeg75")
    with pytest.raises(UserError, match="twice"):
        write_tables(folder)


def test_a_method_may_miss_one_kind_of_input(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 8, examples=0)
    table = with_inputs(folder, "bicubic", "jpeg75")
    gone = (table["input"] == "jpeg75") & table["method"].isin(["steered", "Lanczos"])
    table[~gone].to_csv(folder / "per_image.csv", index=False)
    files = write_tables(folder)
    assert "| Lanczos" in files["table_by_input.md"].read_text()
    assert set(pd.read_csv(files["intervals.csv"])["input"]) == {"bicubic"}


SCRIPTS = {"CJK": "\u673a\u573a", "an emoji": "\U0001f6eb", "a control character": "a\x07b", "Cyrillic": "река"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_in_any_script_are_drawn_or_written_as_numbers(
    tmp_path: Path, script: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    fonts._warn.cache_clear()
    folder = write_evaluation(tmp_path / "evaluate", 8, examples=0)
    for file in ("per_image.csv", "actions.csv"):
        pd.read_csv(folder / file).replace({"scene": {"river": SCRIPTS[script]}}).to_csv(folder / file, index=False)
    evaluation = read_evaluation(folder)
    drawn: list[Figure] = []

    def draw(theme: Theme) -> Figure:
        figure = figures.decisions(evaluation, theme)
        drawn.append(figure)
        return figure

    save_both(tmp_path, "decisions", draw, "")
    written = {text.get_text() for text in drawn[0].findobj(Text)}
    missing = [c for c in SCRIPTS[script] if fonts.font_with(c) is None]
    expected = "".join(c.encode("ascii", "backslashreplace").decode() if c in missing else c for c in SCRIPTS[script])
    assert expected in written
    assert [record.levelname for record in caplog.records] == ["WARNING"] * bool(missing)
    assert not [warning for warning in recwarn if "lyph" in str(warning.message)]


def test_the_page_loads_nothing_and_runs_nothing(evaluation: Path) -> None:
    page = (evaluation / "report.html").read_text()
    links = Links(page)
    assert len(links.loads) >= 15 + 2 * 4
    assert all(load.startswith("data:image/png;base64,") for load in links.loads)
    assert not {"script", "link", "iframe", "object"} & set(links.tags)
    assert not re.search(r"https?://|url\(|@import", page)


def test_the_page_has_every_method_every_scene_and_every_section(evaluation: Path) -> None:
    page = (evaluation / "report.html").read_text()
    for name in (*METHODS, *SCENES):
        assert name.replace("'", "&#39;") in page
    for section in ("methods", "scenes", "side-by-side", "intervals", "policy", "training", "facts"):
        assert f'<section id="{section}">' in page
    for fact in ("orl-ldm evaluate pipelines/demo.toml", "0f0f0f0f", "runs/demo/buffer", "alex v0.1"):
        assert fact in page


def test_figures_are_saved_as_png(evaluation: Path) -> None:
    names = {path.name for path in (evaluation / "figures").iterdir()}
    both = ("frontier", "decisions", "figure3_training", "losses")
    assert names == {f"{name}{dark}.png" for name in both for dark in ("", "-dark")} | {"figure4_side_by_side.png"}


def test_names_from_outside_are_escaped_everywhere(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 16, examples=1)
    for file in ("per_image.csv", "actions.csv"):
        table = pd.read_csv(folder / file).replace({"scene": {"river": EVIL}})
        table.replace({"method": {"Lanczos": EVIL}} if "method" in table else {}).to_csv(folder / file, index=False)
    facts = json.loads((folder / "facts.json").read_text()) | {"pipeline": EVIL, "command": EVIL}
    (folder / "facts.json").write_text(json.dumps(facts))
    index = json.loads((folder / "examples" / "index.json").read_text())
    index[0]["columns"][0]["label"] = index[0]["scene"] = EVIL
    (folder / "examples" / "index.json").write_text(json.dumps(index))
    page = build_report(folder, None).read_text()
    assert "script" not in Links(page).tags
    assert "No training metrics were given" in page
    assert page.count("&lt;script&gt;") >= 6
    tables = write_tables(folder)
    assert all(line.count("|") - line.count(r"\|") == 10 for line in tables["table.md"].read_text().splitlines()[:16])
    output = StringIO()
    print_table(folder, Console(file=output, width=200))
    assert "<script>alert(1)</script>|[red]$x_$" in output.getvalue()


@pytest.mark.parametrize("missing", [("fixed",), ("alone",), ("bicubic", "ceiling"), ("steered",), tuple(ROLES)])
def test_tables_and_summary_do_with_the_roles_there_are(tmp_path: Path, missing: tuple[str, ...]) -> None:
    roles = {role: method for role, method in ROLES.items() if role not in missing}
    folder = write_evaluation(tmp_path / "evaluate", 16, roles, examples=0)
    assert all(path.read_text() for path in write_tables(folder).values())
    print_table(folder, Console(file=StringIO()))
    evaluation = read_evaluation(folder)
    text = " ".join(summary(evaluation, steered_intervals(evaluation)))
    assert ("best fixed schedule, found" in text) == ("fixed" in roles and "steered" in roles)
    assert ("Against the LDM alone" in text) == ("alone" in roles and "steered" in roles)
    assert ("no steered policy was evaluated" in text) == ("steered" in missing)


def test_the_summary_says_when_another_ldm_is_steered(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 16, examples=0)
    for same in (True, False):
        facts = json.loads((folder / "facts.json").read_text()) | {"same_ldm_as_learned": same}
        (folder / "facts.json").write_text(json.dumps(facts))
        evaluation = read_evaluation(folder)
        assert ("another LDM" in " ".join(summary(evaluation, steered_intervals(evaluation)))) == (not same)


def test_a_page_needs_no_role_no_example_no_decision_and_few_training_metrics(tmp_path: Path) -> None:
    folder, train = write_evaluation(tmp_path / "evaluate", 16, {}, examples=0), write_training(tmp_path / "train")
    (folder / "actions.csv").unlink()
    pd.read_csv(train / "metrics.csv")[["losses/value_loss"]].to_csv(train / "metrics.csv", index=False)
    page = build_report(folder, train).read_text()
    assert all(name.replace("'", "&#39;") in page for name in METHODS)
    assert "The learner&#39;s own metrics" in page
    assert "Figure 3" not in page
    assert {path.stem.removesuffix("-dark") for path in (folder / "figures").iterdir()} == {"frontier", "losses"}


@pytest.mark.parametrize(
    ("shift", "outcome"),
    [
        (0.2, "the learned policy beats it"),
        (-0.2, "the fixed control is the better choice"),
        (0.0, "do not show that learning adds anything"),
    ],
)
def test_the_summary_says_whether_the_policy_wins_loses_or_ties(tmp_path: Path, shift: float, outcome: str) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 24, examples=0)
    table = pd.read_csv(folder / "per_image.csv")
    fixed = table.loc[table["method"] == "best fixed schedule", "reward"].to_numpy()
    table.loc[table["method"] == "steered", "reward"] = fixed + shift
    table.to_csv(folder / "per_image.csv", index=False)
    evaluation = read_evaluation(folder)
    *_, against_fixed, rank = summary(evaluation, steered_intervals(evaluation))
    assert outcome in against_fixed
    assert ("higher: best fixed schedule" in rank) == (shift < 0)
    assert ("No other method" in rank) == (shift >= 0)


def test_best_values_leave_out_the_ceiling_and_free_methods(tmp_path: Path) -> None:
    table = write_tables(write_evaluation(tmp_path / "evaluate", 24))["table.md"].read_text()
    bold = {line.split(" | ")[0].removeprefix("| "): line.count("**") // 2 for line in table.splitlines()}
    assert bold["autoencoder ceiling"] == 0
    assert bold["bicubic + projection"] == 2  # PSNR and SSIM, but neither NFE nor time
    assert bold["steered"] >= 2  # LPIPS and rewards


def test_the_reward_of_the_own_setting_is_shown_once(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 8)
    header = write_tables(folder)["table.md"].read_text().splitlines()[0]
    assert header.endswith("| reward balanced | reward paper | reward perceptual |")
    facts = json.loads((folder / "facts.json").read_text())
    facts["weights"]["psnr"] = 0.9  # given by hand: "balanced" would now be two different things
    facts["setting"] = "custom"
    (folder / "facts.json").write_text(json.dumps(facts))
    header = write_tables(folder)["table.md"].read_text().splitlines()[0]
    assert header.endswith("| reward custom | reward paper | reward balanced | reward perceptual |")


def test_the_scene_table_is_laid_out_as_in_the_paper(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 48)
    lines = write_tables(folder)["table_by_scene.md"].read_text().splitlines()
    assert [line.split(" | ")[0].removeprefix("| ").replace("\\", "") for line in lines[2:11]] == [
        *SCENES,
        "all scenes",
    ]
    means = pd.read_csv(folder / "table.csv").set_index("method")["psnr"]
    assert f"{means[ALONE]:.2f} → {means['steered']:.2f} ✓" in lines[10]


def test_the_terminal_shows_both_comparisons_with_intervals(tmp_path: Path) -> None:
    output = StringIO()
    print_table(write_evaluation(tmp_path / "evaluate", 24), Console(file=output, width=200))
    text = output.getvalue()
    assert all(name in text for name in METHODS)
    for reference in ("LDM alone", "best fixed schedule"):
        assert re.search(rf"steered against {reference}: PSNR \S+ \[\S+, \S+\]; SSIM", text)
