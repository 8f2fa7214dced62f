"""Settings of the group logging: where curves and the LoRA are reported."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel

from ..checks import folder_inside
from ..fields import Text, Tracker, log


class LoggingSettings(BaseModel):
    """Where curves and the LoRA are reported; see each field's sentence."""

    report_to: Tracker = log("tensorboard", "Where the loss curves go.", weights=False)
    logging_dir: Annotated[Text, AfterValidator(folder_inside)] = log(
        "logs", "TensorBoard's folder inside output_dir.", weights=False
    )
    debug_loss: bool = log(False, "Log the loss of every picture by its file name.", weights=False)
    push_to_hub: bool = log(
        False, "Upload the LoRA to the hub at the end; the token comes from HF_TOKEN.", weights=False
    )
    hub_model_id: Text | None = log(None, "Repository on the hub; null is the run folder's name.", weights=False)
