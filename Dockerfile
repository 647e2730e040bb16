# syntax=docker/dockerfile:1
#
#   docker build -t serving .
#   docker run --rm --network host -v "$PWD/my-models:/models:ro" serving up /models
#
# The start command is the same as without Docker: what follows the image's name is `serving ...`.
#
# Inside a container, loopback can be reached from the container alone: hence --network host above. To publish a port
# instead, the server must listen on 0.0.0.0, which it refuses to do without access keys (everybody who reaches the
# port could call the models): give it a file of keys.
#
#   docker run --rm -p 8080:8080 -v "$PWD/my-models:/models:ro" -v "$PWD/keys.yaml:/keys.yaml:ro" \
#     -e SERVING_HOST=0.0.0.0 -e SERVING_ACCESS_KEYS=/keys.yaml serving up /models
#
# A read-only root file system works: --read-only --tmpfs /tmp -v serving-data:/data

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# Which frameworks the image can serve: any of the extras of pyproject.toml, e.g. onnx,xgboost,lightgbm,s3
ARG EXTRAS=onnx,xgboost,sklearn,lightgbm,s3,postgres
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY serving ./serving
RUN python -m venv /opt/serving \
 && /opt/serving/bin/pip install --no-cache-dir --disable-pip-version-check ".[${EXTRAS}]" \
 && /opt/serving/bin/python -m compileall -q /opt/serving/lib

FROM python:${PYTHON}-slim
# OpenMP, which XGBoost and LightGBM are linked with.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /data --create-home --shell /usr/sbin/nologin serving
COPY --from=build /opt/serving /opt/serving
ENV PATH=/opt/serving/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    SERVING_DATA_DIR=/data \
    SERVING_LOG_FORMAT=json
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Asks the container contract's own health route, where the settings say that the server listens.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-m", "serving.client"]
ENTRYPOINT ["serving"]
CMD ["up"]
