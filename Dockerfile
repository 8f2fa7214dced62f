# The training image. SageMaker runs it as `IMAGE train`; the pipeline's launcher runs `python -m sdxl_nb.build_pipeline`.
# BASE_IMAGE is any Linux with Python 3.11 or newer and venv: a plain Python (PyTorch's wheels bring CUDA along), or an
# AWS Deep Learning Container, whose own PyTorch is used as it is where it is new enough, be it the system's, conda's or
# in a venv as since 2.11: pytorch:2.13-cu133-amzn2023-sagemaker. infrastructure/base_python.py finds it.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

ENV PATH=/opt/sdxl-nb/bin:${PATH} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# The launcher runs as this user. Training runs as root: SageMaker mounts /opt/ml for root.
RUN useradd --create-home --user-group --no-log-init sdxl-nb

# The requirements at their locked versions change seldom: their layer is the large one and stays.
WORKDIR /opt/sdxl-nb-source
ARG EXTRAS="cuda prodigy sagemaker wandb"
COPY constraints.txt pyproject.toml infrastructure/base_python.py ./
RUN python3 base_python.py /opt/sdxl-nb constraints.txt
RUN python -c "import sys, tomllib; \
p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*p['dependencies'], *(r for e in sys.argv[1:] for r in p['optional-dependencies'][e]), sep='\n')" ${EXTRAS} \
    > requirements.txt \
 && pip install --requirement requirements.txt --constraint constraints.txt

COPY README.md LICENSE ./
COPY notebooks notebooks
COPY sdxl_nb sdxl_nb
RUN pip install --no-deps . && python -I -c "import sdxl_nb.config.train_config"

WORKDIR /home/sdxl-nb
ENTRYPOINT ["python", "-m", "sdxl_nb.container"]
