# Worldline for hosts with NVIDIA GPUs; the driver comes from the host (NVIDIA Container Toolkit), CUDA's
# libraries with PyTorch's wheels. Build: docker build -t worldline .   Run: see compose.yaml.
FROM python:3.12-slim-bookworm AS build
WORKDIR /build
RUN pip install --no-cache-dir --disable-pip-version-check build==1.6.1 hatchling==1.33.0
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m build --no-isolation --wheel --outdir /wheel

FROM python:3.12-slim-bookworm
# A C compiler: Triton builds the launchers of its kernels when they are first used. Debian keeps one
# version per release, and drops it when a fixed one comes: a pinned version would break the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /srv/worldline --shell /usr/sbin/nologin worldline
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheel /tmp/wheel
# With PyAV, whose wheels bundle GPL x264: an image you pass on is under that licence too.
RUN wheel="$(find /tmp/wheel -name '*.whl')" \
    && pip install --no-cache-dir --disable-pip-version-check --constraint /tmp/constraints.txt \
        "${wheel}[video,models,auth,tls]" \
    && rm -rf /tmp/wheel /tmp/constraints.txt

USER 10001
WORKDIR /srv/worldline
# Everything that is kept lies under the home: weights, kernels, measured choices, certificates.
ENV HF_HOME=/srv/worldline/.cache/huggingface \
    TRITON_CACHE_DIR=/srv/worldline/.cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/srv/worldline/.cache/inductor \
    PYTHONUNBUFFERED=1
RUN mkdir -p /srv/worldline/.cache
VOLUME ["/srv/worldline/.cache"]
EXPOSE 30000 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9000/healthz', timeout=4)"]
ENTRYPOINT ["worldline"]
# Others can reach a container's port, so keys are needed: WORLDLINE_API_KEYS, or --api-keys FILE.
CMD ["serve", "--host", "0.0.0.0", "--port", "30000", "--admin-port", "9000"]
