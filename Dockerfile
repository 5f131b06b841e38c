# syntax=docker/dockerfile:1
# medseg for CPUs, or by --build-arg DEVICE=cuda for NVIDIA's GPUs; docs/how-to/docker.md says how to use it.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON}-slim-bookworm
ARG DEVICE=cpu
ARG EXTRAS=dicom
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/medseg

# Layers from what changes least to what changes most: the user, PyTorch, the other packages, medseg.
# Any user id may run it, also one without a name: whatever asks for a home or a name is answered here.
RUN useradd --uid 1000 --home-dir /tmp --no-create-home medseg && install --directory --mode=1777 /work
ENV HOME=/tmp USER=medseg

COPY constraints.txt ./
RUN grep '^torch==' constraints.txt > torch.txt && case "$DEVICE" in \
        cpu) pip install --no-deps --index-url https://download.pytorch.org/whl/cpu --requirement torch.txt ;; \
        cuda) pip install --constraint constraints.txt --requirement torch.txt ;; \
        *) echo "DEVICE=$DEVICE: allowed are cpu and cuda" >&2; exit 1 ;; \
    esac

COPY pyproject.toml ./
RUN python -c 'import sys, tomllib; \
        project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        extras = [project["optional-dependencies"][name] for name in sys.argv[1].split()]; \
        print(*project["dependencies"], *sum(extras, []), sep="\n")' "$EXTRAS" > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt

RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-deps /dist/*.whl

USER 1000
WORKDIR /work
ENTRYPOINT ["medseg", "predict"]
CMD ["--help"]
