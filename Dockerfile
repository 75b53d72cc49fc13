# syntax=docker/dockerfile:1
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS build
RUN pip install --no-cache-dir "uv>=0.13,<1"
WORKDIR /source
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY packages ./packages
COPY src ./src
ENV UV_PROJECT_ENVIRONMENT=/opt/crawlscope UV_LINK_MODE=copy
RUN uv sync --frozen --no-dev --no-editable --compile-bytecode

FROM python:${PYTHON}-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin crawlscope \
    && install --directory --owner=crawlscope /data
COPY --from=build /opt/crawlscope /opt/crawlscope
ENV PATH=/opt/crawlscope/bin:$PATH PYTHONUNBUFFERED=1 CRAWLSCOPE_DATA_DIR=/data CRAWLSCOPE_HOST=0.0.0.0
WORKDIR /data
USER 10001
VOLUME /data
EXPOSE 8108
# Deliveries can be committed. Containers that serve nothing override it.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('CRAWLSCOPE_PORT', 8108)}/readyz\", timeout=5)"]
ENTRYPOINT ["crawlscope"]
CMD ["up"]
