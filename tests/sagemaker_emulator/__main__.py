"""python -m sagemaker_emulator COMMAND...: run a command (a notebook, say) with SageMaker on this machine."""

import subprocess
import sys

from . import SageMakerEmulator

if __name__ == "__main__":
    with SageMakerEmulator() as aws:
        names = {"BUCKET_NAME": aws.bucket, "SDXL_NB_ROLE_ARN": aws.role, "SDXL_NB_IMAGE_URI": aws.image}
        import os

        sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, **names}).returncode)
