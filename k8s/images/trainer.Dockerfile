# The trainer service's image. Build it from the repository's root:
#   docker build -f k8s/images/trainer.Dockerfile -t personae/trainer:VERSION .
# torch's wheels bring the CUDA libraries they were built with; the base adds the CUDA runtime and what tells the NVIDIA
# container toolkit to mount the driver. A digest (CUDA_IMAGE=…@sha256:…) pins the very bytes where a tag may move: `make
# pin-images` asks a registry for it. None is written here, because none was pulled here.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${CUDA_IMAGE} AS packages
ARG PIP_VERSION=26.3
ARG TORCH=torch==2.13.*
ENV PIP_NO_CACHE_DIR=1
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
# pip lives in an environment of its own and is left behind with it.
RUN python3 -m venv /opt/pip && /opt/pip/bin/pip install "pip==${PIP_VERSION}" && python3 -m venv --without-pip /opt/venv
WORKDIR /build
COPY k8s/images/trainer.lock ./
# Everything but torch: wheels only, each with its hash, and nothing beyond the list (make lock).
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --require-hashes --no-deps --only-binary :all: --requirement trainer.lock
# torch by its version alone: which build it is (CUDA, CPU) is the registry's or mirror's to say. What it needs beside CUDA's own
# libraries is there already; the check says whether all of it fits together.
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --only-binary :all: "${TORCH}" \
 && /opt/pip/bin/pip --python /opt/venv/bin/python check

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
COPY trainer_service/ trainer_service/
# Whatever a library caches goes below HOME: with /tmp mounted writable, the rest may be read-only.
ENV HOME=/tmp PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Numeric, so that the kubelet can see that it is not root.
USER 10001:10001
ENTRYPOINT ["python", "-m", "trainer_service"]
