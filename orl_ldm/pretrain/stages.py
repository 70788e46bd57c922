"""The two trained networks: what each is, what its loss is, and how it is validated."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, UNet2DModel
from torch import Tensor, nn

from orl_ldm.diffusion.ldm import encode
from orl_ldm.diffusion.schedule import NoiseSchedule, add_noise, to_x0_and_eps, training_target
from orl_ldm.images.resample import downscale, to_8bit, upscale
from orl_ldm.pretrain.config import DenoiserConfig, FirstStageConfig
from orl_ldm.pretrain.data import noise_like
from orl_ldm.streams import stream

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
        norm_num_groups=8,
    )


class FirstStageLoss(nn.Module):
    """L1 reconstruction, with noise on latents of unit mean power.

    The noise makes the encoder spend its power where it lowers the error most, so latents come out smooth and scaled
    alike; the denoiser can then work on them without a further normalisation.
    """

    def __init__(self, network: Any, config: FirstStageConfig, seed: int) -> None:
        super().__init__()
        self.network, self.config, self.seed = network, config, seed

    def forward(self, hr: Tensor, step: int) -> Tensor:
        """The loss of one batch of crops (B, 3, S, S) in [0, 1]."""
        latents = encode(self.network, hr)
        noisy = latents + self.config.latent_noise * noise_like(latents, self.seed, "noise", step)
        reconstruction = self.network.decode(noisy).sample
        power = (latents.float().square().mean() - 1).square()
        return F.l1_loss(reconstruction.float(), hr * 2 - 1) + 0.01 * power

    def validate(self, hr: Tensor) -> dict[str, float]:
        """PSNR in dB of the autoencoder's ceiling on (N, 3, H, W) images, and the latents' standard deviation."""
        with torch.no_grad():
            latents = torch.cat([encode(self.network, x[None]) for x in hr])
            output = torch.cat([(self.network.decode(z[None]).sample + 1) / 2 for z in latents])
        return {"ceiling_psnr": _psnr(output, hr), "latent_std": float(latents.std())}


class DenoiserLoss(nn.Module):
    """Mean squared error of the denoiser's prediction at uniform timesteps, on (HR latent, LR image) pairs."""

    def __init__(self, network: Any, first_stage: Any, schedule: NoiseSchedule, scale: int, seed: int) -> None:
        super().__init__()
        self.network, self.schedule, self.scale, self.seed = network, schedule, scale, seed
        self._frozen = [first_stage.requires_grad_(False).eval()]  # in a list, so that it is not a part of this module

    @property
    def first_stage(self) -> Any:
        """The frozen autoencoder that the latents come from."""
        return self._frozen[0]

    def forward(self, hr: Tensor, step: int) -> Tensor:
        """The loss of one batch of crops (B, 3, S, S) in [0, 1]."""
        with torch.no_grad():
            x0 = encode(self.first_stage, hr).float()
            lr = to_8bit(downscale(hr, self.scale))
        rng = stream(self.seed, "timestep", step)
        spread = (rng.random() + torch.arange(len(hr)) / len(hr)) % 1  # stratified: every batch covers [0, T)
        t = (spread * self.schedule.num_train_timesteps).floor().to(hr.device)
        alpha_bar = self.schedule.alpha_bar(t)
        noise = noise_like(x0, self.seed, "noise", step)
        x = add_noise(x0, noise, alpha_bar)
        prediction = self.network(torch.cat([x, lr * 2 - 1], dim=1), t).sample
        target = training_target(x0, noise, alpha_bar, self.schedule.prediction_type)
        return F.mse_loss(prediction.float(), target)

    def validate(self, hr: Tensor) -> dict[str, float]:
        """Error of x0-hat at three noise levels and the PSNR in dB of the estimate after one call from pure noise."""
        lr = to_8bit(downscale(hr, self.scale))
        scores = {"bicubic_psnr": _psnr(to_8bit(upscale(lr, self.scale)), hr)}
        last = self.schedule.num_train_timesteps - 1
        with torch.no_grad():
            x0 = torch.cat([encode(self.first_stage, x[None]).float() for x in hr])
            noise = noise_like(x0, self.seed, "start", 0)
            for t in (last, last // 2, last // 5):
                alpha_bar = self.schedule.alpha_bar(torch.tensor([float(t)], device=hr.device))
                pairs = []
                for clean, drawn, small in zip(x0, noise, lr, strict=True):
                    x = add_noise(clean[None], drawn[None], alpha_bar) if t < last else drawn[None]
                    prediction = self.network(torch.cat([x, small[None] * 2 - 1], dim=1), t).sample.float()
                    pairs.append(to_x0_and_eps(x, prediction, alpha_bar, self.schedule)[0])
                estimate = torch.cat(pairs)
                scores[f"x0_mse_t{t}"] = float(F.mse_loss(estimate, x0))
                if t == last:
                    images = torch.cat([(self.first_stage.decode(z[None]).sample + 1) / 2 for z in estimate])
                    scores["one_call_psnr"] = _psnr(images, hr)
        return scores


def _psnr(output: Tensor, target: Tensor) -> float:
    error = (to_8bit(output) - target).square().mean(dim=(1, 2, 3))
    return float((-10 * torch.log10(error)).mean())
