# Every Python part of the workspace: they share one lock, so they share one recipe, and build arguments tell them apart.
#   docker build --target runtime --build-arg SYNC="--package demo-service --extra notify" .
# Nothing in it needs BuildKit.
ARG BASE_IMAGE=python:3.12.11-slim-bookworm

# What decides which packages are installed; as long as it stays the same, they are not installed again.
FROM ${BASE_IMAGE} AS manifests
COPY . /workspace
RUN find /workspace -type f ! -name pyproject.toml ! -name uv.lock -delete

FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL UV_DEFAULT_INDEX
RUN python3 -m venv /uv && /uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
ENV UV_PROJECT_ENVIRONMENT=/venv UV_PYTHON=python3 UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 \
    UV_COMPILE_BYTECODE=1 UV_NO_PROGRESS=1
WORKDIR /workspace
COPY --from=manifests /workspace .
ARG SYNC="--package demo-service"
RUN /uv/bin/uv sync --locked --no-default-groups --no-install-workspace ${SYNC}
COPY . .
RUN /uv/bin/uv sync --locked --no-default-groups --no-editable ${SYNC}

FROM ${BASE_IMAGE} AS runtime
# The volumes' folder belongs to the user before a volume is laid over it.
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin app && \
    install --directory --owner app --group app /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
USER 10001:10001
ARG HEALTH_URL=http://127.0.0.1:8000/health/ready
ENV HEALTH_URL=${HEALTH_URL}
HEALTHCHECK --interval=5s --timeout=15s --start-period=300s --retries=6 \
    CMD ["python", "-c", "import os, urllib.request as web; web.build_opener(web.ProxyHandler({})).open(os.environ['HEALTH_URL'], timeout=10)"]
ENTRYPOINT ["python", "-m"]
CMD ["demo_service"]

# OAP from Maven Central, only for compose.local.yaml.
FROM runtime AS oap
ARG MAVEN_MIRROR_URL
ENV OAP_EMBEDDED_CACHE=/jars
USER root
RUN python -m oap_embedded fetch && rm -f /jars/.lock
USER 10001:10001
CMD ["oap_embedded", "run", "--data", "/data", "--host", "0.0.0.0"]
