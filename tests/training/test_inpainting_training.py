"""An inpainting base: what its U-Net is given, and that it trains, resumes, measures and draws."""

import numpy as np
import pytest
import torch
from bases import configure_single_files, file, relative
from small_runs import assert_same, small, studio, tensors, train

from sdxl_nb.data.sampling import Choices
from sdxl_nb.drawing.generation import generate
from sdxl_nb.models.inpainting import draw_hole, hollowed
from sdxl_nb.models.loading import load, load_unet
from sdxl_nb.models.sources import Source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(relative(tmp_path_factory.mktemp("inpainting") / "base", in_channels=9))


def test_the_unet_sees_the_noise_the_mask_and_what_is_around_it(tmp_path, base):
    """As diffusers' inpainting pipeline puts them together: noisy latents, mask, latents of the masked picture."""
    made = studio(small(tmp_path, pretrained_model_name_or_path=base))
    asked = [Choices.at(5, position, timesteps=1000, empty_share=0) for position in range(4)]
    again = [Choices.at(5, position, timesteps=1000, empty_share=0) for position in range(4)]
    batch = made.batch([0, 1, 4, 3], asked)
    assert batch.latents.shape == (4, 4, 8, 8) and batch.around.shape == (4, 5, 8, 8)
    seen = []
    hook = made.unet.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    noisy = torch.randn(4, 4, 8, 8)
    made.predict(noisy, batch)
    hook.remove()
    assert torch.equal(seen[0], torch.cat([noisy, batch.around], dim=1))
    scaling = made.objective.latents
    for number, (index, choices) in enumerate(zip([0, 1, 4, 3], again, strict=True)):
        hole = draw_hole(32, 32, choices.generator)
        pixels, _ = made.latents._cut((index, choices))
        whole, around = (torch.from_numpy(p)[None] for p in (pixels, hollowed(pixels, hole)))
        with torch.no_grad():
            latents, rest = (made.vae.encode(picture).latent_dist for picture in (whole, around))
        noise = [torch.from_numpy(choices.noise((4, 8, 8))) for _ in range(2)]
        found = scaling.scaled(latents.mean + latents.std * noise[0])
        torch.testing.assert_close(batch.latents[number], found[0], rtol=1e-5, atol=1e-5)
        found = scaling.scaled(rest.mean + rest.std * noise[1])
        torch.testing.assert_close(batch.around[number, 1:], found[0], rtol=1e-5, atol=1e-5)
        mask = torch.nn.functional.interpolate(torch.from_numpy(hole[None, None].astype(np.float32)), size=(8, 8))
        assert torch.equal(batch.around[number, :1], mask[0])


def test_it_trains_resumes_and_is_drawn_by_diffusers_inpainting_pipeline(tmp_path, base, monkeypatch):
    from diffusers import StableDiffusionXLInpaintPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from PIL import Image

    drawn = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 3}
    settings = {"pretrained_model_name_or_path": base, "validation_split": 0.3, "max_train_steps": 4} | drawn
    whole = train(small(tmp_path / "whole", **settings))
    assert "This base inpaints" in (whole.folder / "log.txt").read_text()
    assert all(np.isfinite(event["loss"]) for event in whole.events("heldout"))

    def stop(event):
        if event["event"] == "step" and event["step"] == 2:
            (tmp_path / "parts" / "stop").touch()

    train(small(tmp_path / "parts", **settings), stop)
    train(small(tmp_path / "parts", **settings, resume_from_checkpoint="latest"))
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert all(torch.isfinite(tensor).all() for tensor in tensors(whole.folder).values())

    options = {"num_inference_steps": 3, "guidance_scale": 5.0, "height": 32, "width": 32}
    ours = generate(base, whole.folder, "a card", seeds=(7,), progress=False, **options).at()
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda latents, generator=None: latents.mode())
    pipeline = StableDiffusionXLInpaintPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(whole.folder)
    white, any_picture = Image.new("L", (32, 32), 255), Image.new("RGB", (32, 32), (9, 200, 30))
    generator = torch.Generator("cpu").manual_seed(7)
    images = {"image": any_picture, "mask_image": white, "strength": 1.0}
    theirs = pipeline("a card", generator=generator, **images, **options).images[0]
    assert np.abs(np.asarray(theirs).astype(int) - np.asarray(ours)).max() <= 2
    assert np.asarray(ours).std() > 5


def test_one_file_with_nine_channels_is_read_alike_by_both_loaders(tmp_path, monkeypatch):
    configure_single_files(monkeypatch)
    first = torch.randn(64, 9, 3, 3)
    source = Source(str(file(tmp_path / "x.safetensors", **{"model.diffusion_model.input_blocks.0.0.weight": first})))
    ours, theirs = load_unet(source), load(source, "unet")
    assert ours.config.in_channels == theirs.config.in_channels == 9
    assert torch.equal(ours.conv_in.weight, first) and torch.equal(theirs.conv_in.weight, first)
