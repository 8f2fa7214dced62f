"""Validation pictures: the same prompts from the same seeds, so that only the LoRA differs from step to step.

Every picture has a generator of its own and the training's random streams are keyed by position, so looking never
changes training.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..cache.embeddings import Prompt
from ..config.prompts import Drawing
from ..drawing.scheduler import sampled_by
from ..models.inpainting import paint_everything
from ..models.objective.base_objective import BaseObjective, made
from ..models.quiet import hushed
from ..system.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image


class Validator:
    """Draws what the configuration asks for with the U-Net as it is now.

    `prompts` are embedded by their numbers; `away` are those that guidance leads away from, by their texts.
    """

    def __init__(
        self,
        drawings: Sequence[Drawing],
        unet: Any,
        vae: Any,
        objective: BaseObjective,
        prompts: Prompt,
        away: Mapping[str, Prompt],
    ):
        with hushed():
            from diffusers import StableDiffusionXLPipeline

        self.drawings, self.prompts, self.vae = drawings, prompts, vae
        self.away, self.latents = away, objective.latents
        self.pipeline = StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=made(objective.scheduler),
            add_watermarker=False,
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.own = self.pipeline.scheduler
        self.inpaints = objective.inpaints

    @torch.no_grad()
    def draw(
        self, device: torch.device, dtype: torch.dtype, process: int = 0, processes: int = 1
    ) -> list[tuple[str, bytes]]:
        """One process's part of the pictures, prompt by prompt, as file names (PP-SEED.png) and their contents.

        Raises ModelError when the VAE cannot decode them.
        """
        unet = self.pipeline.unet
        training, trained = unet.training, [p for p in unet.parameters() if p.requires_grad]
        unet.eval().requires_grad_(False)  # with gradients torch may choose other kernels than for the saved LoRA
        hook = paint_everything(self.pipeline, self.latents) if self.inpaints else None
        try:
            pictures: list[tuple[str, bytes]] = []
            for portion in self._portions()[process::processes]:
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    latents = self._latents(portion, device, dtype)
                names = [f"{drawing.number:02d}-{drawing.seed}.png" for drawing in portion]
                pictures += zip(names, map(_encoded, self._decode(latents)), strict=True)
            return pictures
        finally:
            if hook:
                hook.remove()
            unet.train(training)
            for parameter in trained:
                parameter.requires_grad_()

    def _portions(self) -> list[list[Drawing]]:
        """Each prompt's pictures, as many at once as surely fit beside the training: one from 512 x 512 pixels on."""
        portions = []
        for _, of_one in groupby(self.drawings, key=lambda drawing: drawing.number):
            same = list(of_one)
            many = max(1, 512**2 // (same[0].width * same[0].height))
            portions += [same[first : first + many] for first in range(0, len(same), many)]
        return portions

    def _latents(self, portion: Sequence[Drawing], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The latents of one prompt's pictures, one generator a picture."""
        first, many = portion[0], len(portion)
        hidden, pooled, no_hidden, no_pooled = (
            t[at : at + 1].to(device, dtype).repeat(many, *(1,) * (t.dim() - 1))
            for prompt, at in ((self.prompts, first.number), (self.away[first.negative], 0))
            for t in prompt
        )
        self.pipeline.scheduler = self.own if first.sampler is None else sampled_by(self.own, first.sampler)
        drawn: torch.Tensor = self.pipeline(
            prompt_embeds=hidden,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=no_hidden,
            negative_pooled_prompt_embeds=no_pooled,
            height=first.height,
            width=first.width,
            num_inference_steps=first.steps,
            guidance_scale=first.guidance,
            generator=[torch.Generator("cpu").manual_seed(drawing.seed) for drawing in portion],
            output_type="latent",
        ).images
        return drawn

    def _decode(self, latents: torch.Tensor) -> list["Image"]:
        """Latents to PIL pictures one by one, in the VAE's own dtype (fp32 for one that is not fp16-safe)."""
        home, vae = self.vae.device, self.vae.to(latents.device)
        if not torch.isfinite(latents).all():
            raise ModelError("The model drew latents that are not numbers: lower --learning_rate or resume earlier.")
        made: list[Image] = []
        for latent in latents.split(1):
            pixels = vae.decode(self.latents.unscaled(latent.to(vae.dtype)), return_dict=False)[0]
            if not torch.isfinite(pixels).all():
                raise ModelError(
                    "The VAE decodes to numbers that are not finite: use --pretrained_vae_model_name_or_path "
                    "madebyollin/sdxl-vae-fp16-fix."
                )
            made += self.pipeline.image_processor.postprocess(pixels.float(), output_type="pil")
        self.vae.to(home)
        return made


def _encoded(picture: "Image") -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def write_pictures(folder: Path, step: int, pictures: Sequence[tuple[str, bytes]]) -> list[Path]:
    """Write `validation/step-N/PP-SEED.png` into a run folder; each file is complete or absent. Returns the paths."""
    target = folder / "validation" / f"step-{step}"
    target.mkdir(parents=True, exist_ok=True)
    for name, content in pictures:
        draft = target / f".{name}.draft"
        draft.write_bytes(content)
        draft.replace(target / name)
    return [target / name for name, _ in pictures]
