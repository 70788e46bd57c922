"""The page and the tables: complete, self-contained, escaped, and honest about what is missing or lost."""

import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from fake_evaluation import ALONE, METHODS, ROLES, SCENES, write_evaluation, write_training
from rich.console import Console

from orl_ldm.errors import UserError
from orl_ldm.report import build_report, print_table, write_tables
from orl_ldm.report.inputs import read_evaluation
from orl_ldm.report.tables import steered_intervals
from orl_ldm.report.words import summary
from orl_ldm.reward import SETTINGS

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


def test_the_page_shows_estimates_beside_the_replay(tmp_path: Path) -> None:
    folder, train = write_evaluation(tmp_path / "evaluate", examples=1), write_training(tmp_path / "train")
    accepted = {"epoch": 8, "reward": 0.71, "low": 0.7, "high": 0.72, "behavior": 0.65, "why": "the highest bound"}
    facts = json.loads((folder / "facts.json").read_text())
    facts["policy"]["accepted"] = accepted
    (folder / "facts.json").write_text(json.dumps(facts))
    page = build_report(folder, train).read_text()
    assert "that of epoch 8: the highest bound, estimated at 0.7100 [0.7000, 0.7200]" in page
    assert "No test image took part in the choice." in page and "held out of learning" not in page

    # the dial was turned for this evaluation: the replay is said in the weights that the policy was judged by
    kept = (folder / "facts.json").read_text()
    weights = {"psnr": 0.0, "ssim": 0.0, "lpips": 0.0, "nfe": 1.0}
    policy = {**facts["policy"], "setting": "paper", "weights": SETTINGS["paper"]}
    (folder / "facts.json").write_text(json.dumps({**facts, "weights": weights, "policy": policy}))
    table = pd.read_csv(folder / "per_image.csv")
    replayed = table[table["method"] == "steered"]["reward_paper"].mean()
    assert f"Its replay on the test images gave {replayed:.4f}." in build_report(folder, train).read_text()
    custom = {**policy, "setting": "custom", "weights": {**weights, "psnr": 0.5}}
    (folder / "facts.json").write_text(json.dumps({**facts, "weights": weights, "policy": custom}))
    assert "Its replay on the test images" not in build_report(folder, train).read_text()
    (folder / "facts.json").write_text(kept)

    (train / "ope").mkdir()
    names = ("fqe", "wis", "replay")
    columns = {f"{name}{end}": [0.7, 0.71, 0.72] for name in names for end in ("", "_low", "_high")}
    table = pd.DataFrame({"checkpoint": ["e1", "e2<b>", "e3"], **columns, "wis_effective_episodes": [9.0, 5, 2]})
    table.to_csv(train / "ope" / "ope.csv", index=False)
    rho = {"replayed_images": 17, "spearman": {"fqe": 0.95, "wis": -0.25}}
    (train / "ope" / "ope.json").write_text(json.dumps(rho))
    page = build_report(folder, train).read_text()
    assert "on 17 training images that nothing was learned from" in page and "e2&lt;b&gt;" in page
    assert (folder / "figures" / "checkpoints.png").exists()
    (train / "ope" / "ope.json").write_text("{")
    with pytest.raises(UserError, match="run orl-ldm ope again"):
        build_report(folder, train)


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
