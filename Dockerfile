# Two images: `serve` (the last stage, the default) without torch, Feast or a compiler, and `train`, which trains and
# publishes. A bundle reaches the service through the volume at /var/lib/streamrec.
#
#   docker build -t streamrec .
#   docker build -t streamrec-train --target train .
#
# Never built where this was written (no engine there); tests/deploy/test_deployment.py checks what can be checked.
FROM python:3.11-slim-bookworm AS base
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* && \
    useradd --system --uid 10001 --create-home --home-dir /var/lib/streamrec streamrec && \
    python -m venv /opt/streamrec
ENV PATH=/opt/streamrec/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/opt/streamrec/compiled \
    STREAMREC_HOME=/var/lib/streamrec
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY app app
COPY domain domain
COPY evaluation evaluation
COPY events events
COPY fallbacks fallbacks
COPY features features
COPY monitoring monitoring
COPY ranking ranking
COPY release release
COPY reranking reranking
COPY retrieval retrieval
COPY training training

FROM base AS train
COPY triton_repo triton_repo
COPY data data
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[train,features]' && \
    install --directory --owner streamrec "$NUMBA_CACHE_DIR"
USER streamrec
VOLUME /var/lib/streamrec
ENTRYPOINT ["streamrec"]
CMD ["--help"]

FROM base AS serve
RUN pip install --no-cache-dir --constraint constraints.txt . && rm -rf /src
WORKDIR /var/lib/streamrec
# The loops of the request path, compiled for this processor; for another one the first start compiles anew (seconds).
RUN python -c "import app.serving" && chown -R streamrec "$NUMBA_CACHE_DIR"
USER streamrec
# Others can connect, so it wants STREAMREC_API_KEYS, or STREAMREC_TRUSTED_PROXY=1 where a proxy checks callers.
ENV STREAMREC_HOST=0.0.0.0
VOLUME /var/lib/streamrec
EXPOSE 8080 8081
HEALTHCHECK --interval=5s --timeout=2s --start-period=60s CMD ["streamrec", "health"]
ENTRYPOINT ["streamrec"]
CMD ["serve"]
