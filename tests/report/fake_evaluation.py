"""An evaluation folder as the evaluator writes it, made of seeded random numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from orl_ldm.actions import ACTIONS
from orl_ldm.reward import SETTINGS, compose

SCENES = ("commercial_area", "dense_residential", "desert", "forest", "industrial_area", "railway_station", "river",
          "runway")  # fmt: skip
ALONE = "LDM alone, DDIM 100, eta 0"
SAME = "LDM alone, DDIM 2 (the policy's NFE)"

#: Method -> PSNR (dB), SSIM, LPIPS, NFE, seconds.
METHODS: dict[str, tuple[float, float, float, float, float]] = {
    "bicubic": (27.89, 0.678, 0.486, 0, 0.001),
    "Lanczos": (27.98, 0.684, 0.472, 0, 0.001),
    "bicubic + projection": (28.34, 0.708, 0.438, 0, 0.002),
    "autoencoder ceiling": (31.9, 0.861, 0.092, 0, 0.03),
    ALONE: (25.32, 0.550, 0.303, 100, 2.4),
    "LDM alone, DDIM 100, eta 1": (25.94, 0.588, 0.283, 100, 2.4),
    SAME: (26.45, 0.612, 0.331, 2, 0.07),
    f"{ALONE} + projection": (26.1, 0.599, 0.283, 100, 2.4),
    "LDM alone, DDIM 100, eta 1 + projection": (26.54, 0.614, 0.269, 100, 2.4),
    f"{SAME} + projection": (27.1, 0.645, 0.309, 2, 0.07),
    "LDM, DPM-Solver++ 10": (25.7, 0.571, 0.291, 10, 0.26),
    "LDM, DPM-Solver++ 20": (25.45, 0.557, 0.298, 20, 0.5),
    "best fixed schedule": (27.94, 0.684, 0.270, 2, 0.08),
    "steered": (27.91, 0.684, 0.238, 2.1, 0.09),
}
ROLES = {
    "bicubic": "bicubic",
    "ceiling": "autoencoder ceiling",
    "alone": ALONE,
    "fixed": "best fixed schedule",
    "steered": "steered",
}


def per_image(images: int = 48, seed: int = 0) -> pd.DataFrame:
    """Rows of per_image.csv for all METHODS: the image decides most of a value, the method a little."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 1, images)
    frames = []
    for method, (psnr, ssim, lpips, nfe, seconds) in METHODS.items():
        noise = rng.normal(0, 0.15, (3, images)) + difficulty
        calls = (
            rng.choice([1, 2, 3, 4], images, p=[0.3, 0.4, 0.2, 0.1]) if method == "steered" else np.full(images, nfe)
        )
        terms = np.column_stack(
            [
                psnr + 2.5 * noise[0],
                ssim + 0.08 * noise[1],
                np.abs(lpips - 0.05 * noise[2]),
                calls,
                np.full(images, seconds),
            ]
        )
        frame = pd.DataFrame(terms, columns=["psnr", "ssim", "lpips", "nfe", "seconds"])
        frame.insert(0, "scene", [SCENES[i % len(SCENES)] for i in range(images)])
        frame.insert(0, "image", [f"test/{SCENES[i % len(SCENES)]}/{i:03d}" for i in range(images)])
        frame.insert(0, "method", method)
        frame["reward"] = compose(terms, SETTINGS["balanced"], 20)
        for name, weights in SETTINGS.items():
            frame[f"reward_{name}"] = compose(terms, weights, 20)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def actions(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Rows of actions.csv: as many decisions per image as the steered policy made calls, and one to stop."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for row in table[table["method"] == "steered"].itertuples():
        t, place = 1.0, SCENES.index(str(row.scene)) / 8
        for decision in range(int(str(row.nfe).split(".")[0]) + 1):
            step = float(np.clip(rng.normal(0.45 + 0.4 * place, 0.08), 0, 1))
            values = np.clip(
                [rng.normal(m, 0.07) for m in (0.2 + 0.5 * place, 0.5 - 0.2 * place, 0.8 - 0.1 * decision, 0.6)], 0, 1
            )
            names = dict(zip(list(ACTIONS)[1:], (values[0], 0.5 + values[1], *values[2:]), strict=True))
            rows.append({"image": row.image, "scene": row.scene, "decision": decision, "t": t, "t_ratio": step} | names)
            t *= step
    return pd.DataFrame(rows)


def facts(images: int, roles: dict[str, str]) -> dict[str, Any]:
    """facts.json."""
    return {
        "pipeline": "demo",
        "setting": "balanced",
        "weights": {"psnr": 0.2, "ssim": 0.2, "lpips": 0.5, "nfe": 0.1},
        "images": images,
        "size": 128,
        "seed": 7,
        "contract": {"version": "1", "crop": 0, "y_channel": False, "psnr": "dB, capped at 100", "lpips": "alex v0.1"},
        "ldm": {"id": "orl-ldm/demo", "digest": "sha256:" + "0f" * 32},
        "nfe_max": 20,
        "policy": {
            "algo": "critics",
            "steps": 4000,
            "seed": 42,
            "episodes": 2400,
            "buffers": ["runs/demo/buffer"],
            "behavior_reward": 0.61,
            "estimated_reward": 0.7391,
            "alarms": {},
        },
        "roles": roles,
        "fixed_schedule": [{"t_ratio": 0.7, "eta": 0.0, "detail": 1.02, "fidelity": 0.93, "grain": 0.8}],
        "search_episodes": 2400,
        "command": "orl-ldm evaluate pipelines/demo.toml",
    }


def crop(blur: int, seed: int) -> Image.Image:
    """64 x 64 px of terraced noise, the coarser the larger `blur` is."""
    side = 64 // blur
    small = np.random.default_rng(seed).integers(60, 200, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)


def write_evaluation(folder: Path, images: int = 48, roles: dict[str, str] = ROLES, examples: int = 8) -> Path:
    """A whole evaluation; `roles` may lack entries, `examples` is the number of scenes with crops."""
    folder.mkdir(parents=True)
    table = per_image(images)
    table.to_csv(folder / "per_image.csv", index=False)
    actions(table).to_csv(folder / "actions.csv", index=False)
    (folder / "facts.json").write_text(json.dumps(facts(images, roles)))
    index = []
    for number, scene in enumerate(SCENES[:examples]):
        (folder / "examples" / scene).mkdir(parents=True)
        columns: list[dict[str, Any]] = []
        for role, blur in (("bicubic", 8), ("alone", 2), ("fixed", 4), ("steered", 2), ("hr", 1)):
            crop(blur, number).save(folder / "examples" / scene / f"{role}.png")
            columns.append({"label": roles.get(role, "HR (reference)"), "file": f"{scene}/{role}.png"})
            if role in roles:
                psnr, _, lpips, nfe, _ = METHODS[roles[role]]
                columns[-1] |= {"psnr": psnr, "lpips": lpips, "nfe": round(nfe)}
        index.append({"scene": scene, "image": f"test/{scene}/{number:03d}", "columns": columns})
    if examples:
        (folder / "examples" / "index.json").write_text(json.dumps(index))
    return folder


def write_training(folder: Path, epochs: int = 40) -> Path:
    """The learner's metrics.csv."""
    folder.mkdir(parents=True)
    rng, epoch = np.random.default_rng(0), np.arange(1, epochs + 1)
    columns = {
        "epoch": epoch,
        "offline/estimated_reward": 0.739 - 0.12 * np.exp(-epoch / 6) + rng.normal(0, 0.002, epochs),
        "losses/value_loss": 0.5 * np.exp(-epoch / 8) + 0.1 + rng.normal(0, 0.01, epochs),
        "losses/policy_loss": -0.2 + 0.3 * np.exp(-epoch / 10) + rng.normal(0, 0.01, epochs),
        "losses/approx_kl": 0.02 + np.abs(rng.normal(0, 0.01, epochs)),
        "offline/largest_ratio": rng.uniform(1, 20, epochs),
    }
    pd.DataFrame(columns).to_csv(folder / "metrics.csv", index=False)
    return folder
