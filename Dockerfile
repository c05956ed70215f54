# syntax=docker/dockerfile:1
# Two images from one file: `api` (REST API and dashboard, no torch) and `worker` (torch, transformers).
#   docker build --target api -t sama-api .
#   docker build --target worker -t sama-worker .

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 sama \
    && mkdir -p /var/lib/sama /data \
    && chown sama:sama /var/lib/sama
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY migrations migrations
COPY service service
ENV SAMA_DATA_DIR=/var/lib/sama SAMA_DATA_ROOTS=/data SAMA_LOG_FORMAT=json

FROM base AS api
RUN pip install -c constraints.txt .
USER sama
ENV SAMA_HOST=0.0.0.0 SAMA_PORT=8000
EXPOSE 8000
CMD ["python", "-m", "service.main"]

FROM base AS worker
COPY sama_core sama_core
COPY worker worker
RUN pip install -c constraints.txt ".[worker,hf]"
USER sama
# SIGTERM makes the attempt write a checkpoint and hand its job back; give it time before SIGKILL.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "worker"]
