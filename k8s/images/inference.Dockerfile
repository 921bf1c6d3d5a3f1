# The inference service's image. Build it from the repository's root:
#   docker build -f k8s/images/inference.Dockerfile -t personae/inference:VERSION .
# torch's wheels bring the CUDA libraries they were built with; the base adds the CUDA runtime and what tells the NVIDIA
# container toolkit to mount the driver. A digest (CUDA_IMAGE=…@sha256:…) pins the very bytes where a tag may move: take
# it from the registry that you pull from. None is written here, because none was pulled here.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${CUDA_IMAGE} AS packages
ARG PIP_VERSION=26.3
ARG TORCH=torch==2.13.*
ENV PIP_NO_CACHE_DIR=1
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
# pip lives in an environment of its own and is left behind with it.
RUN python3 -m venv /opt/pip && /opt/pip/bin/pip install "pip==${PIP_VERSION}" && python3 -m venv --without-pip /opt/venv
# torch first and alone, so that the build that pip finds is the one that stays; its layer outlives other changes.
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install "${TORCH}"
WORKDIR /build
COPY pyproject.toml ./
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --group inference

FROM ${CUDA_IMAGE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /tmp personae
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY client/personae/ personae/
COPY service_kit/ service_kit/
COPY base_models/ base_models/
COPY inference_service/ inference_service/
# Whatever a library caches goes below HOME: with /tmp mounted writable, the rest may be read-only.
ENV HOME=/tmp PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Numeric, so that the kubelet can see that it is not root.
USER 10001:10001
ENTRYPOINT ["python", "-m", "inference_service"]
