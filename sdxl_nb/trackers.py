"""TensorBoard and Weights & Biases: accelerate's trackers, fed with a run's events."""

from pathlib import Path
from typing import Any


class Trackers:
    """Loss, learning rate and validation pictures to wherever `report_to` says; call it with each event."""

    def __init__(self, config: Any, accelerator: Any, folder: Path):
        self.accelerator, self.folder, self.prompts = accelerator, folder, config.validation_prompt or []
        options = {"wandb": {"name": folder.name, "dir": str(folder)}}
        accelerator.init_trackers("sdxl_nb", init_kwargs=options)

    def __call__(self, event: dict[str, Any]) -> None:
        kind, step = event["event"], event["step"]
        if kind == "step":
            values = {"train_loss": event["train_loss"], "lr": event["lr"]}
            self.accelerator.log({k: v for k, v in values.items() if v is not None}, step=step)
        elif kind == "heldout":
            self.accelerator.log({"heldout_loss": event["loss"]}, step=step)
        elif kind == "validation":
            self._pictures(event)

    def _pictures(self, event: dict[str, Any]) -> None:
        import numpy as np
        from PIL import Image

        paths = [self.folder / path for path in event["pictures"]]
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                drawn = {f"validation/{p.stem}": np.asarray(Image.open(p))[None] for p in paths}
                for name, picture in drawn.items():
                    tracker.writer.add_images(name, picture, event["step"], dataformats="NHWC")
            elif tracker.name == "wandb":
                import wandb

                captions = [self.prompts[int(p.stem.split("-")[0])] for p in paths]
                pictures = [wandb.Image(str(p), caption=c) for p, c in zip(paths, captions, strict=True)]
                tracker.run.log({"validation": pictures}, step=event["step"])

    def close(self) -> None:
        self.accelerator.end_training()
