"""True replay of many policies on the same images: which estimates and ablations are compared with."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from orl_ldm.config import digest
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.env.spaces import spec
from orl_ldm.errors import UserError
from orl_ldm.evaluate.methods import steered
from orl_ldm.evaluate.runner import Advance, Runner, per_image
from orl_ldm.images.config import DataConfig
from orl_ldm.images.sources import ImageRef, open_images
from orl_ldm.metrics import Metrics
from orl_ldm.policy import open_policy
from orl_ldm.reward import Weights


def training_images(data: DataConfig, logged: int, held: Collection[int], count: int) -> list[ImageRef]:
    """The images of the training split whose ids are in `held`, and then others of that split, up to `count`.

    The others lie outside the first `logged` that a collection takes. Raises UserError when no held image is found.
    """
    refs = open_images(data.source, data.train_split, data.classes, logged, data.seed, data.image_column)
    known = {ref.image_id for ref in refs}
    found = [ref for ref in refs if ref.image_id in held]
    if not found:
        raise UserError("the buffers hold none of this pipeline's training images: set data and collect.images alike")
    if count > len(found):
        more = open_images(
            data.source, data.train_split, data.classes, logged + count - len(found), data.seed, data.image_column
        )
        found += [ref for ref in more if ref.image_id not in known][: count - len(found)]
    return found


def replay(
    folders: Mapping[str, Path],
    refs: list[ImageRef],
    data: DataConfig,
    sampler: SamplerConfig,
    ldm: LDM,
    weights: Weights,
    out: Path,
    seed: int,
    advance: Advance,
) -> pd.DataFrame:
    """Scores of each policy's mean action under the reward `weights`, also its preference; kept in `out` to resume.

    As `per_image.csv`: a row for each policy (`method`) and image, with its raw terms and its reward.
    """
    runner = Runner(out, refs, data, ldm, Metrics(ldm.device), 16, advance)
    scores = {}
    for name, folder in folders.items():
        opened = open_policy(folder, weights, spec())
        key = digest(opened.digest, weights, asdict(sampler))
        scores[name, data.degradation] = runner.score(steered(ldm, opened.policy, key, sampler, seed))
    return per_image(scores, refs, weights, sampler.nfe_max)
