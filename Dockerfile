# The service in a container. What torch brings for NVIDIA GPUs is most of the image; for a small one that only knows the CPU,
# name the index of CPU builds that PyTorch's install page gives:
#   docker build --build-arg TORCH_INDEX_URL=<that address> --tag torchlight .

FROM python:3.11-slim-bookworm AS dependencies
ARG TORCH_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.txt .ci/install-requirements /build/
RUN /build/install-requirements pip /build/requirements.txt "$TORCH_INDEX_URL" && pip check

FROM dependencies AS project
WORKDIR /build
COPY . .
RUN pip install --no-deps --no-build-isolation --prefix /opt/torchlight .

FROM python:3.11-slim-bookworm
# /tmp is the only place a read-only container can write to; libraries put their caches under HOME, whoever the user is.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp TORCHLIGHT_HOST=0.0.0.0 TORCHLIGHT_PORT=8000
COPY --from=dependencies /opt/venv /opt/venv
# A layer of its own, so that a change of code does not ship gigabytes again.
COPY --from=project /opt/torchlight /opt/venv
# A number, so that a cluster can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import http.client, os, sys; \
    server = http.client.HTTPConnection('127.0.0.1', int(os.environ['TORCHLIGHT_PORT']), timeout=4); \
    server.request('GET', '/readyz'); sys.exit(server.getresponse().status != 200)"]
CMD ["torchlight", "serve"]
