"""Collect a buffer: deterministic units of work, each published as one shard.

A unit is a range of images with all their rollouts. Its name says what it is, so resuming is a set difference: a
collector that was killed, or a second machine, does what is not yet published.
"""

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.actions import ACTIONS
from orl_ldm.buffer import BufferWriter, Header
from orl_ldm.buffer import ImageRef as LoggedImage
from orl_ldm.buffer.coverage import range_name
from orl_ldm.collect.config import CollectConfig
from orl_ldm.config import digest
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.env.rollout import Rollout, roll_out
from orl_ldm.env.spaces import spec
from orl_ldm.errors import UserError
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import Batch, load_pairs
from orl_ldm.images.sources import ImageRef, open_images
from orl_ldm.metrics import Metrics, episode_terms
from orl_ldm.policy import BroadPolicy, Explorer, Policy, open_policy
from orl_ldm.reward import TERMS
from orl_ldm.streams import stable_id

#: The versions that a reader may want to know; they do not decide whether shards belong together.
PACKAGES = ("orl-ldm", "torch", "diffusers", "numpy", "torchmetrics")


@dataclass(frozen=True)
class Collection:
    """What a call of `collect` did."""

    url: str
    behavior: str  # its id
    units: int
    resumed: int  # of these, published by an earlier call
    episodes: int


def behavior(config: CollectConfig) -> tuple[Policy, str]:
    """The behaviour policy and its id."""
    if not config.policy:
        if config.prefer:
            raise UserError("collect.prefer is the preference of a policy: name one with collect.policy")
        alpha, beta = zip(*(config.prior.get(name, action.prior) for name, action in ACTIONS.items()), strict=True)
        return BroadPolicy(spec(), alpha, beta), f"broad-{digest(alpha, beta)[:12]}"
    opened = open_policy(config.policy, config.prefer, spec())
    factors = [config.concentration.get(name, 1.0) for name in ACTIONS]
    behavior_id = f"explorer-{opened.digest[:12]}-{'-'.join(f'{factor:g}' for factor in factors)}"
    return Explorer(opened.policy, factors), behavior_id


def collect(
    config: CollectConfig,
    data: DataConfig,
    sampler: SamplerConfig,
    ldm: LDM,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Collection:
    """Roll out every unit that is not published yet, and publish it.

    `advance(done, total)` hears of episodes. Terms of one unit are computed, and its shard is written, while the next
    unit is being denoised. Raises UserError, before any work, when images, LDM or policy do not fit, when shards that
    are there already could not be read together with new ones, and when the buffer cannot be written to.
    """
    ldm.require(data.size, data.scale)
    refs = open_images(data.source, data.train_split, data.classes, config.images, data.seed, data.image_column)
    policy, behavior_id = behavior(config)
    # What the numbers of any image depend on.
    columns = (data.image_column,) if data.image_column else ()
    pairs = (data.source, data.train_split, data.size, data.scale, data.degradation, data.seed, *columns)
    shared = digest(pairs, asdict(sampler), ldm.digest, str(ldm.dtype))
    unit = (behavior_id, config.seed, config.rollouts, config.first_rollout, config.unit_images)
    identity = digest(shared, [ref.name for ref in refs], *unit)
    header = _header(shared, ldm, behavior_id, config, sampler, data.degradation)
    writer = BufferWriter(config.out, header, config.codec)
    units = {
        range_name(identity[:12], start, min(start + config.unit_images, len(refs)), len(refs)): refs[
            start : start + config.unit_images
        ]
        for start in part_of(range(0, len(refs), config.unit_images), config.part)
    }
    published = writer.published() & set(units)
    try:
        writer.require_compatible(identity[:12] if config.alone else "")
    except UserError as error:
        raise UserError(
            f"{error}: --set collect.out=..., or --set name=... for folders of its own. (`pipeline_digest` is of the "
            "images' source, split, size, scale, degradation and seed, the sampler's settings and the LDM)"
        ) from None
    total = sum(map(len, units.values())) * config.rollouts
    done = sum(len(units[name]) for name in published) * config.rollouts
    advance(done, total)
    if len(published) < len(units):
        writer.check_writable()
    metrics = Metrics(device=ldm.device)
    waiting: Future[int] | None = None
    with ThreadPoolExecutor(max_workers=1) as scorer:
        for name, images in units.items():
            if name in published:
                continue
            batch = repeated(load_pairs(images, data), config.rollouts)
            ids, rollouts = keys(images, config)
            rollout = roll_out(ldm, policy, batch.lr, ids, rollouts, sampler, config.seed)
            if waiting is not None:
                done += waiting.result()
                advance(done, total)
            waiting = scorer.submit(_publish, writer, name, rollout, batch, images, rollouts, metrics, header)
        if waiting is not None:
            done += waiting.result()
            advance(done, total)
    return Collection(config.out, behavior_id, len(units), len(published), total)


def part_of(starts: range, part: str) -> range:
    """Part K of N, "K/N": every N-th from the K-th on. Raises UserError for a part that there is not."""
    number, count = map(int, part.split("/"))
    if number > count:
        raise UserError(f"collect.part is {part!r}; of {count} parts, give 1/{count} to {count}/{count}")
    return starts[number - 1 :: count]


def repeated(batch: Batch, rollouts: int) -> Batch:
    """Every image `rollouts` times in a row."""
    refs = tuple(ref for ref in batch.refs for _ in range(rollouts))
    return Batch(batch.hr.repeat_interleave(rollouts, 0), batch.lr.repeat_interleave(rollouts, 0), refs)


def keys(images: Sequence[ImageRef], config: CollectConfig) -> tuple[list[int], list[int]]:
    """(image ids, rollout numbers) of a unit's episodes."""
    numbers = range(config.first_rollout, config.first_rollout + config.rollouts)
    return [ref.image_id for ref in images for _ in numbers], [k for _ in images for k in numbers]


def _publish(
    writer: BufferWriter,
    name: str,
    rollout: Rollout,
    batch: Batch,
    images: Sequence[ImageRef],
    rollouts: Sequence[int],
    metrics: Metrics,
    header: Header,
) -> int:
    """Score a unit's episodes and write its shard; returns their number."""
    quality = metrics(rollout.images, batch.hr.to(rollout.images.device))
    terms = episode_terms(quality, rollout.nfe, rollout.seconds).astype(np.float32)
    columns = to_columns(rollout, terms, batch.refs, rollouts, header)
    writer.write(name, columns, [LoggedImage(ref.image_id, ref.name, ref.scene) for ref in images])
    return len(batch.refs)


def to_columns(
    rollout: Rollout, terms: npt.NDArray[np.float32], refs: Sequence[ImageRef], rollouts: Sequence[int], header: Header
) -> dict[str, npt.NDArray[Any]]:
    """The buffer's columns of B episodes with raw terms (B, T)."""
    rows = len(rollout.slot)
    last = np.append(rollout.slot[1:] != rollout.slot[:-1], True)
    of_rows = np.zeros((rows, len(TERMS)), dtype=np.float32)
    of_rows[last] = terms
    episodes = [
        stable_id(f"{header.behavior_id}/{header.seed}/{ref.name}/{number}")
        for ref, number in zip(refs, rollouts, strict=True)
    ]
    return {
        "observations": rollout.observations,
        "actions": rollout.actions,
        "log_probs": rollout.log_probs,
        "terminals": last,
        "terms": of_rows,
        "episode_id": np.array(episodes, dtype=np.int64)[rollout.slot],
        "image_id": np.array([ref.image_id for ref in refs], dtype=np.int64)[rollout.slot],
    }


def _header(
    shared: str, ldm: LDM, behavior_id: str, config: CollectConfig, sampler: SamplerConfig, degradation: str
) -> Header:
    return Header(
        **{name: getattr(spec(), name) for name in ("feature_names", "action_names", "action_low", "action_high")},
        term_names=tuple(TERMS),
        nfe_max=sampler.nfe_max,
        sampler=asdict(sampler),
        degradation=degradation,
        pipeline_digest=shared,
        ldm_id=ldm.ldm_id,
        ldm_digest=ldm.digest,
        behavior_id=behavior_id,
        seed=config.seed,
        packages={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    )
