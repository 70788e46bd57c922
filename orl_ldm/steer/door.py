"""SteeredSR: an image in, an image of four times the size out, by a frozen LDM that a policy steers.

Legend: B images, h x w LR pixels, s the scale.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orl_ldm.config import build
from orl_ldm.diffusion.config import LDMConfig, SamplerConfig
from orl_ldm.diffusion.ldm import LDM, open_ldm
from orl_ldm.diffusion.sampler import sample
from orl_ldm.diffusion.statistics import averaged, fixed, recorded
from orl_ldm.env.rollout import roll_out
from orl_ldm.env.spaces import spec
from orl_ldm.errors import UserError
from orl_ldm.images.check import as_images
from orl_ldm.policy import Policy, open_policy
from orl_ldm.reward import Weights
from orl_ldm.steer.schedule import Schedule
from orl_ldm.steer.tiling import Tiling, reflected, tiling

Image = TypeVar("Image", Tensor, npt.NDArray[np.uint8], npt.NDArray[np.float32])


#: Largest LR side that is computed in one piece; larger images are computed in tiles.
WHOLE = 256

#: Sides of tiles, what neighbors share, and the smallest padded size, in LR pixels; tiles that a schedule is made from.
TILE, OVERLAP, SMALLEST, SAMPLE = 128, 16, 16, 8


@dataclass(frozen=True)
class Cost:
    """What the last call cost: denoiser calls of each tile or image, and seconds in all."""

    nfe: tuple[int, ...]
    seconds: float


class SteeredSR:
    """Super-resolve images with a frozen LDM that a policy steers.

    Call it with float tensors (B, 3, h, w) or (3, h, w) in [0, 1], or arrays (h, w, 3) of uint8 or of floats in [0, 1];
    it gives the same kind, `scale` times the size, for every size from 1 x 1 on. Float results are not rounded. `last`
    says what the last call cost.
    """

    def __init__(
        self, ldm: LDM, policy: Policy, sampler: SamplerConfig, weights: Weights, seed: int = 7, policy_digest: str = ""
    ) -> None:
        self.ldm, self.policy, self.sampler, self.weights, self.seed = ldm, policy, sampler, weights, seed
        self.policy_digest = policy_digest
        self.last: Cost | None = None

    @classmethod
    def load(
        cls,
        policy: str = "embedded",
        ldm: str = "embedded",
        prefer: str | None = None,
        device: str = "auto",
        seed: int = 7,
        any_ldm: bool = False,
    ) -> "SteeredSR":
        """Load policy and LDM: `embedded`, a folder, or for the LDM a hub id.

        `prefer` gives a preference-conditioned policy its preference, such as `perceptual` or `perception=2,speed=1`;
        without it the policy has its own. A policy that was learned with another LDM is refused, or with `any_ldm`
        warned about. Raises UserError for whatever does not fit.
        """
        opened = open_policy(policy, prefer or "", spec())
        network = open_ldm(LDMConfig(id=ldm, device=device))
        if (learned_with := opened.facts.get("ldm_digest")) not in (None, network.digest):
            problem = (
                f"the policy {policy!r} was learned with the LDM {opened.facts.get('ldm_id')!r} ({learned_with[:12]}), "
                f"not with {ldm!r} ({network.digest[:12]})"
            )
            if not any_ldm:
                raise UserError(f"{problem}: name that LDM, or allow any (any_ldm=True, --any-ldm)")
            warnings.warn(problem, stacklevel=2)
        sampler = build(SamplerConfig, opened.facts.get("sampler", {}), f"the policy {policy!r}")
        return cls(network, opened.policy, sampler, opened.weights, seed, opened.digest)

    @property
    def scale(self) -> int:
        """HR pixels per LR pixel along a side."""
        return self.ldm.scale

    @property
    def size_multiple(self) -> int:
        """LR sizes that need no padding are multiples of this."""
        return self.ldm.size_multiple

    def __call__(self, lr: Image, *, seed: int | None = None, image_id: int = 0) -> Image:
        """The super-resolved image, of the kind that was given. Raises UserError for an image that cannot be one."""
        if isinstance(lr, np.ndarray):
            return self._of_array(lr, seed, image_id)  # type: ignore[return-value]  # of the kind that was given
        batch = as_images(lr)
        hr = self._of_batch(batch, self.seed if seed is None else seed, [image_id] * len(batch))
        return hr.to(lr.dtype) if lr.ndim == 4 else hr[0].to(lr.dtype)

    def _of_array(self, lr: npt.NDArray[np.generic], seed: int | None, image_id: int) -> npt.NDArray[np.generic]:
        if lr.ndim != 3 or lr.shape[2] != 3:
            raise UserError(f"an image array has shape (h, w, 3), not {lr.shape}")
        eight_bit = lr.dtype == np.uint8
        pixels = torch.from_numpy(np.ascontiguousarray(lr, dtype=np.float32 if not eight_bit else None))
        hr = self(pixels.permute(2, 0, 1).float() / (255 if eight_bit else 1), seed=seed, image_id=image_id)
        result = hr.permute(1, 2, 0).contiguous()
        return (result * 255).round().byte().numpy() if eight_bit else result.numpy().astype(lr.dtype)

    def _of_batch(self, lr: Tensor, seed: int, image_ids: Sequence[int]) -> Tensor:
        started, (height, width) = time.perf_counter(), lr.shape[-2:]
        if max(height, width) <= WHOLE:
            sides = [max(SMALLEST, -(-side // self.size_multiple) * self.size_multiple) for side in (height, width)]
            padded = crop(lr, (0, 0), (sides[0], sides[1]))
            rolled = roll_out(
                self.ldm, self.policy, padded, image_ids, [0] * len(lr), self.sampler, seed, explore=False
            )
            hr, nfe = rolled.images.cpu(), tuple(int(n) for n in rolled.nfe)
        else:
            parts = [self._tiled(image, seed, number) for image, number in zip(lr, image_ids, strict=True)]
            hr, nfe = torch.stack([part for part, _ in parts]), tuple(n for _, calls in parts for n in calls)
        self.last = Cost(nfe, time.perf_counter() - started)
        return hr[..., : height * self.scale, : width * self.scale]

    def _tiled(self, lr: Tensor, seed: int, image_id: int) -> tuple[Tensor, tuple[int, ...]]:
        """One image (3, h, w) in tiles under one schedule: (HR image, denoiser calls of each tile)."""
        tiles = self.tiling(lr.shape[-2:], TILE)
        corners = list(tiles)
        chosen = corners[:: max(1, -(-len(corners) // SAMPLE))]
        schedule = self.schedule([crop(lr[None], corner, tiles.tile)[0] for corner in chosen], chosen, seed, image_id)
        whole = lr.new_zeros(3, lr.shape[-2] * self.scale, lr.shape[-1] * self.scale)
        calls: list[int] = []
        for corner in corners:
            hr, nfe = self.run(crop(lr[None], corner, tiles.tile), [corner], schedule, seed, image_id)
            weight = torch.from_numpy(tiles.weight(corner, self.scale))
            add_tile(whole, hr[0] * weight, (corner[0] * self.scale, corner[1] * self.scale))
            calls += nfe
        return whole, tuple(calls)

    def tiling(self, size: Sequence[int], tile: int, shift: int = 0) -> Tiling:
        """The tiles, of `tile` LR pixels a side at most, of a scene of (height, width) LR pixels."""
        overlap = min(OVERLAP, tile // 4)
        return tiling((size[0], size[1]), tile, overlap, self.size_multiple, SMALLEST, shift)

    def run(
        self, tiles: Tensor, corners: Sequence[tuple[int, int]], schedule: Schedule, seed: int, image_id: int
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Tiles (B, 3, h, w) with their corners in the scene: HR tiles (B, 3, sh, sw), and denoiser calls of each."""
        ids, controller = [image_id] * len(tiles), schedule.controller
        with fixed(self.ldm, schedule.statistics) if schedule.statistics else nullcontext():
            result = sample(self.ldm, tiles, ids, [0] * len(tiles), controller, self.sampler, seed, origin=corners)
        return result.images.cpu(), tuple(result.nfe.tolist())

    def schedule(
        self,
        tiles: Sequence[Tensor],
        corners: Sequence[tuple[int, int]],
        seed: int,
        image_id: int,
        batch: int = 4,
        edit: Callable[[Schedule], Schedule] = lambda schedule: schedule,
    ) -> Schedule:
        """One set of decisions, and of normalisation statistics, for a whole scene from some of its tiles (3, h, w).

        Decisions are the means of those that the policy takes for the tiles; `edit` may change them. Statistics are
        those of the tiles under these decisions.
        """
        batches = [slice(begin, begin + batch) for begin in range(0, len(tiles), batch)]
        last, others = [], []
        for part in batches:
            lr = torch.stack(list(tiles[part]))
            ids, zeros = [image_id] * len(lr), [0] * len(lr)
            rolled = roll_out(self.ldm, self.policy, lr, ids, zeros, self.sampler, seed, explore=False)
            for slot in range(len(lr)):
                rows = rolled.actions[rolled.slot == slot]
                last.append(rows[-1])
                others.append(rows[:-1])
        length = round(float(np.mean([len(rows) for rows in others])))
        ahead = [np.mean([rows[k] for rows in others if len(rows) > k], axis=0) for k in range(length)]
        schedule = edit(Schedule(np.stack([*ahead, np.mean(last, axis=0)])))
        if len(tiles) == 1:
            return schedule  # a lone tile's own statistics are those of the scene
        runs = []
        for part in batches:
            with recorded(self.ldm) as statistics:
                self.run(torch.stack(list(tiles[part])), corners[part], schedule, seed, image_id)
            runs.append((len(tiles[part]), statistics))
        return replace(schedule, statistics=tuple(averaged(runs)))


def crop(lr: Tensor, corner: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The part (B, 3, *size) of images (B, 3, h, w) at a corner, mirrored beyond their borders."""
    rows, columns = (
        torch.from_numpy(reflected(begin, begin + side, whole))
        for begin, side, whole in zip(corner, size, lr.shape[-2:], strict=True)
    )
    return lr[..., rows[:, None], columns]


def add_tile(whole: Tensor, tile: Tensor, corner: tuple[int, int]) -> None:
    """Add a part (C, H, W) to an image at a corner in the image's pixels, cutting off what lies outside."""
    top, left = corner
    rows = slice(max(0, top), max(0, min(whole.shape[-2], top + tile.shape[-2])))
    columns = slice(max(0, left), max(0, min(whole.shape[-1], left + tile.shape[-1])))
    whole[:, rows, columns] += tile[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
