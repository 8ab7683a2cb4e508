# syntax=docker/dockerfile:1

FROM python:3.11-slim AS build
WORKDIR /src
COPY constraints.txt .
# Every file is held against its hash here; below, only what the gateway needs is taken from /wheels.
RUN pip wheel --no-cache-dir --require-hashes --wheel-dir /wheels --requirement constraints.txt
RUN pip install --no-cache-dir --no-index --find-links /wheels --upgrade setuptools
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv /opt/hammerwork \
 && /opt/hammerwork/bin/pip install --no-cache-dir --no-index --find-links /wheels "hammerwork[rabbitmq,kafka,aws,ed25519]"

FROM python:3.11-slim
RUN useradd --uid 10001 --home-dir /app --create-home hammerwork
COPY --from=build /opt/hammerwork /opt/hammerwork
ENV PATH="/opt/hammerwork/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    HAMMERWORK_LOG__FORMAT=json
WORKDIR /app
# As a number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('HAMMERWORK_HTTP__PORT', '8080') + '/livez', timeout=2)"]
ENTRYPOINT ["hammerwork"]
CMD ["run"]
