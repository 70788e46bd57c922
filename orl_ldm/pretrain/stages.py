"""The two trained networks: what each is, what its loss is, and how it is validated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, UNet2DModel
from torch import Tensor, nn

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM, encode
from orl_ldm.diffusion.sampler import ddim_controller, sample
from orl_ldm.diffusion.schedule import add_noise, training_target
from orl_ldm.images.degrade import low_resolution
from orl_ldm.images.resample import to_8bit, upscale
from orl_ldm.metrics import METRICS, Metrics
from orl_ldm.pretrain.config import DenoiserConfig, FirstStageConfig
from orl_ldm.pretrain.data import noise_of, spread

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0155,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
}


def build_first_stage(config: FirstStageConfig) -> Any:
    """An untrained f4 autoencoder: pixel (un)shuffling, and no normalisation across space, so it tiles without seams.

    It starts close to a linear map (residual branches at zero, a constant under the output's normalisation), which is
    worth about 9 dB after the first 400 steps.
    """
    network = AutoencoderDC(
        in_channels=3,
        latent_channels=config.latent_channels,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(config.channels // 2, config.channels, 2 * config.channels),
        decoder_block_out_channels=(config.channels // 2, config.channels, 2 * config.channels),
        encoder_layers_per_block=config.encoder_layers,
        decoder_layers_per_block=config.decoder_layers,
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        downsample_block_type="pixel_unshuffle",
        upsample_block_type="pixel_shuffle",
    )
    for name, parameter in network.named_parameters():
        if ".norm." in name:
            nn.init.zeros_(parameter)
    nn.init.ones_(network.decoder.norm_out.bias)
    return network


def build_denoiser(config: DenoiserConfig, latent_channels: int) -> Any:
    """An untrained convolutional UNet: no attention, so any image size is in reach."""
    levels = len(config.channels)
    return UNet2DModel(
        in_channels=latent_channels + 3,
        out_channels=latent_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        add_attention=False,
        norm_num_groups=config.norm_num_groups,
    )


@dataclass(frozen=True)
class Validation:
    """Named scores on the held-out images, and the pictures (N, 3, H, W) in [0, 1] that were scored, by title."""

    scores: dict[str, float]
    pictures: dict[str, Tensor]


class FirstStageLoss(nn.Module):
    """L1 reconstruction, with noise on latents of unit mean power.

    The noise makes the encoder spend its power where it lowers the error most, so latents come out smooth and scaled
    alike; the denoiser can then work on them without a further normalisation.
    """

    def __init__(self, network: Any, latent_noise: float) -> None:
        super().__init__()
        self.network, self.latent_noise = network, latent_noise

    def forward(self, hr: Tensor, lr: Tensor, noise: Tensor, items: Tensor) -> Tensor:
        """The loss of crops (B, 3, S, S), LR images (B, 3, h, w), noise (B, C, h, w) and items (B,) of the stream."""
        latents = encode(self.network, hr)
        noisy = latents + self.latent_noise * noise
        reconstruction = self.network.decode(noisy).sample
        power = (latents.float().square().mean(dim=(1, 2, 3)) - 1).square().mean()
        return F.l1_loss(reconstruction.float(), hr * 2 - 1) + 0.01 * power

    def validate(self, hr: Tensor) -> Validation:
        """The autoencoder's ceiling on (N, 3, H, W) images, and the latents' standard deviation."""
        latents = torch.cat([encode(self.network, image[None]) for image in hr])
        output = torch.cat([to_8bit((self.network.decode(z[None]).sample + 1) / 2) for z in latents])
        scores = {**_scores("ceiling", output, hr), "latent_std": float(latents.std())}
        return Validation(scores, {"autoencoder": output, "reference": hr})


class DenoiserLoss(nn.Module):
    """Mean squared error of the denoiser's prediction, on (HR latent, LR image) pairs at evenly spread timesteps."""

    def __init__(
        self, ldm: LDM, seed: int, validation_steps: int, degradation: str = "bicubic", compiled: bool = False
    ) -> None:
        super().__init__()
        self.network, self.seed, self.validation_steps = ldm.unet, seed, validation_steps
        self.degradation = degradation
        self._in_training = (torch.compile(ldm.unet) if compiled else ldm.unet,)  # validation has other shapes
        self._ldm = (ldm,)  # in a tuple, so that the frozen first stage is not a part of this module

    def forward(self, hr: Tensor, lr: Tensor, noise: Tensor, items: Tensor) -> Tensor:
        """The loss of crops (B, 3, S, S), LR images (B, 3, h, w), noise (B, C, h, w) and items (B,) of the stream."""
        ldm = self._ldm[0]
        with torch.no_grad():
            x0 = encode(ldm.first_stage, hr).float() * ldm.latent_scale
        t = (spread(items) * ldm.schedule.num_train_timesteps).floor().to(hr.device)
        alpha_bar = ldm.schedule.alpha_bar(t)
        x = add_noise(x0, noise, alpha_bar)
        network = self._in_training[0] if self.network.training else self.network
        prediction = network(torch.cat([x, lr * 2 - 1], dim=1), t.float()).sample
        target = training_target(x0, noise, alpha_bar, ldm.schedule.prediction_type)
        return F.mse_loss(prediction.float(), target)

    def validate(self, hr: Tensor) -> Validation:
        """The loss on (N, 3, H, W) images, and what comes of one call from pure noise and of DDIM from there.

        Clean images are scored too where the training's are degraded, under names that begin with `clean`.
        """
        ldm = self._ldm[0]
        items = range(len(hr))
        lr = self._low(hr, self.degradation)
        noises = [noise_of(ldm.latent_shape(*hr.shape[-2:]), self.seed, i).to(hr.device) for i in items]
        losses = [self(hr[i : i + 1], lr[i : i + 1], noises[i][None], torch.tensor([i])) for i in items]
        scores = {"held_out_loss": float(torch.stack(losses).mean())}
        pictures = self._pictures(lr, (1, self.validation_steps))
        for title, images in pictures.items():
            scores |= _scores(title, images, hr)
        if self.degradation != "bicubic":
            for title, images in self._pictures(self._low(hr, "bicubic"), (1,)).items():
                scores |= _scores(f"clean {title}", images, hr)
        return Validation(
            scores, {"LR image": F.interpolate(lr, scale_factor=float(ldm.scale)), **pictures, "reference": hr}
        )

    def _low(self, hr: Tensor, degradation: str) -> Tensor:
        """LR images (N, 3, h, w); each validation sees the same."""
        scale = self._ldm[0].scale
        return torch.stack([low_resolution(image, scale, degradation, self.seed, i) for i, image in enumerate(hr)])

    def _pictures(self, lr: Tensor, counts: Sequence[int]) -> dict[str, Tensor]:
        """Bicubic upscales, and images by each number of calls (N, 3, H, W), by title."""
        ldm = self._ldm[0]
        pictures = {"bicubic": to_8bit(upscale(lr, ldm.scale))}
        for steps in counts:
            control = ddim_controller(ldm.schedule.grid(steps, "trailing"), 0.0)
            config = SamplerConfig(nfe_max=steps, t_floor=0.0)
            title = "one call" if steps == 1 else f"DDIM {steps}"
            pictures[title] = torch.cat(
                [sample(ldm, x[None], [i], [0], control, config, self.seed, True).images for i, x in enumerate(lr)]
            )
        return pictures


def _scores(title: str, output: Tensor, target: Tensor) -> dict[str, float]:
    """Mean PSNR in dB and LPIPS of images (N, 3, H, W) at 8-bit levels, under names that begin with the title."""
    means = dict(zip(METRICS, Metrics(device=target.device)(output, target).mean(0).tolist(), strict=True))
    name = title.lower().replace(" ", "_")
    return {f"{name}_{metric}": means[metric] for metric in ("psnr", "lpips")}
