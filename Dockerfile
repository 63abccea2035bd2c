# The image of one pipeline process:
#   docker build -t sqs2pg . && docker run --rm sqs2pg --help
# For both platforms, as a release does it (the same commit gives the same bytes):
#   docker buildx build --platform linux/amd64,linux/arm64 --provenance=mode=max --sbom=true \
#     --build-arg REVISION="$(git rev-parse HEAD)" --build-arg VERSION=X.Y.Z --build-arg SOURCE_DATE_EPOCH="$(git log -1 --pretty=%ct)" \
#     --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:… .
# It runs with a read-only root filesystem, without capabilities and as any user. As PID 1 it handles
# SIGTERM itself: it stops receiving, finishes or releases what is in hand, and exits 0.
# The first stage puts the locked dependencies and our wheel into one environment. The second stage has
# Python, that environment and a user that owns only its own folder. Every dependency is a wheel, on
# x86-64 and ARM64. So is the C compiler for our native extension, which stays in the first stage.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
# Time stamp of files in wheels and of compiled modules; 1980 is the earliest that a zip file can hold.
ARG SOURCE_DATE_EPOCH=315532800
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PYTHONHASHSEED=0 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/runtime.txt requirements/build.txt requirements/
# The environment gets no pip of its own; the stage's pip installs into it.
RUN python -m venv --without-pip /opt/sqs2pg \
    && pip --python /opt/sqs2pg/bin/python install --require-hashes --only-binary=:all: \
        -r requirements/runtime.txt \
    && pip install --require-hashes --only-binary=:all: -r requirements/build.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY native native
COPY src src
# The import fails if the native extension could not be compiled, so no image lacks it unnoticed.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/sqs2pg/bin/python install --no-deps --no-index dist/*.whl \
    && /opt/sqs2pg/bin/python -c "import sqs2pg._native" \
    && /opt/sqs2pg/bin/sqs2pg --version

FROM ${PYTHON_IMAGE}
ARG REVISION=unknown
ARG VERSION=unreleased
LABEL org.opencontainers.image.title="sqs2pg" \
      org.opencontainers.image.description="Reads JSON events from SQS, masks the sensitive fields, writes rows to PostgreSQL, exactly once" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim-trixie" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/sqs2pg/sqs2pg" \
      org.opencontainers.image.documentation="https://github.com/sqs2pg/sqs2pg/tree/main/docs"
# USER below is a number, not a name, because Kubernetes' runAsNonRoot can check only numbers. A new
# named volume mounted on the user's folder takes over its owner and its mode.
RUN groupadd --gid 10001 sqs2pg \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/sqs2pg \
        --shell /usr/sbin/nologin sqs2pg \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/sqs2pg
COPY --from=build /opt/sqs2pg /opt/sqs2pg
ENV PATH=/opt/sqs2pg/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/sqs2pg
EXPOSE 9465
STOPSIGNAL SIGTERM
# For `run`: checks whether polls and commits still make progress. Run a container of another command,
# or one whose status page is off, with --no-healthcheck.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9465/livez', timeout=4)"]
ENTRYPOINT ["sqs2pg"]
CMD ["run"]
