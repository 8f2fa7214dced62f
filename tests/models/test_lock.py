"""Threads that build models: one at a time."""

import threading

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.adapter import add_lora
from sdxl_nb.models.loading import load
from sdxl_nb.models.sources import Source


def test_what_loads_a_model_and_what_makes_layers_take_turns(monkeypatch, tmp_path):
    """Meanwhile the libraries have torch.nn.Module make layers without values, in every thread."""
    from diffusers import AutoencoderKL

    begun, go_on, from_pretrained = threading.Event(), threading.Event(), AutoencoderKL.from_pretrained

    def slow(*arguments, **options):
        begun.set()
        go_on.wait(600)
        return from_pretrained(*arguments, **options)

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", slow)
    source, config = Source("embedded:tiny-sdxl"), TrainConfig.preset("tiny", output_dir=str(tmp_path))
    unet = load(source, "unet")
    threads = [
        threading.Thread(target=load, args=(source, "vae")),
        threading.Thread(target=add_lora, args=(config, unet)),
    ]
    threads[0].start()
    assert begun.wait(600)
    threads[1].start()
    threads[1].join(0.5)
    assert threads[1].is_alive() and not any("lora_" in name for name, _ in unet.named_parameters())
    go_on.set()
    for thread in threads:
        thread.join(600)
    made = [parameter for name, parameter in unet.named_parameters() if "lora_" in name]
    assert made and not any(parameter.is_meta for parameter in made)
