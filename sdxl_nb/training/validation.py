"""Validation pictures: the same prompts from the same seeds, so that only the LoRA differs from step to step.

Every picture has a generator of its own and the training's random streams are keyed by position, so looking never
changes training.
"""

import contextlib
import io
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..cache.embeddings import Prompt
from ..config.prompts import Drawing
from ..drawing.denoiser import denoising
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
        # where a step computes all in the U-Net's own dtype, so does drawing
        mixed = dtype != torch.float32 and getattr(unet, "fast", None) is None
        short = contextlib.nullcontext() if mixed else denoising(unet)
        try:
            with short, torch.autocast(device.type, dtype, enabled=mixed):
                return self._drawn(self._portions(processes)[process::processes], device, dtype)
        finally:
            if hook:
                hook.remove()
            unet.train(training)
            for parameter in trained:
                parameter.requires_grad_()

    def _drawn(
        self, portions: Sequence[Sequence[Drawing]], device: torch.device, dtype: torch.dtype
    ) -> list[tuple[str, bytes]]:
        """The pictures of these portions; on a CPU those before are decoded while the next ones are drawn."""
        pictures: list[tuple[Drawing, bytes]] = []
        waiting: deque[Future[list[tuple[Drawing, bytes]]]] = deque()
        with ThreadPoolExecutor(1) as beside:
            for portion in portions:
                latents = self._latents(portion, device, dtype)
                if device.type != "cpu":  # where decoding would take memory beside drawing
                    pictures += self._decoded(portion, latents)
                    continue
                waiting.append(beside.submit(self._decoded, portion, latents))
                if len(waiting) > 1:
                    pictures += waiting.popleft().result()
            for future in waiting:
                pictures += future.result()
        pictures.sort(key=lambda each: self.drawings.index(each[0]))
        return [(f"{drawing.number:02d}-{drawing.seed}.png", picture) for drawing, picture in pictures]

    def _portions(self, processes: int = 1) -> list[list[Drawing]]:
        """What is drawn alike, as much at once as surely fits beside the training: one from 512 x 512 pixels on.

        No more than each process's share of it.
        """
        alike: dict[tuple[Any, ...], list[Drawing]] = {}
        for each in self.drawings:
            alike.setdefault((each.width, each.height, each.steps, each.guidance, each.sampler), []).append(each)
        portions = []
        for (width, height, *_), same in alike.items():
            many = min(-(-len(same) // processes), max(1, 512**2 // (width * height)))
            portions += [same[first : first + many] for first in range(0, len(same), many)]
        return portions

    def _latents(self, portion: Sequence[Drawing], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The latents of pictures that are drawn alike, one generator a picture."""
        first = portion[0]
        away = [self.away[each.negative] for each in portion]
        hidden, pooled = (part[[each.number for each in portion]].to(device, dtype) for part in self.prompts)
        no_hidden, no_pooled = (torch.cat(parts).to(device, dtype) for parts in zip(*away, strict=True))
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

    @torch.no_grad()  # of each thread its own
    def _decoded(self, portion: Sequence[Drawing], latents: torch.Tensor) -> list[tuple[Drawing, bytes]]:
        """Latents to PNGs one by one, in the VAE's own dtype (fp32 for one that is not fp16-safe)."""
        home, vae = self.vae.device, self.vae.to(latents.device)
        if not torch.isfinite(latents).all():
            raise ModelError("The model drew latents that are not numbers: lower --learning_rate or resume earlier.")
        made: list[Image] = []
        with torch.autocast(latents.device.type, enabled=False):
            for latent in latents.split(1):
                pixels = vae.decode(self.latents.unscaled(latent.to(vae.dtype)), return_dict=False)[0]
                if not torch.isfinite(pixels).all():
                    raise ModelError(
                        "The VAE decodes to numbers that are not finite: use --pretrained_vae_model_name_or_path "
                        "madebyollin/sdxl-vae-fp16-fix."
                    )
                made += self.pipeline.image_processor.postprocess(pixels.float(), output_type="pil")
        self.vae.to(home)
        return list(zip(portion, map(_encoded, made), strict=True))


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
