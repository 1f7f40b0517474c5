# The service in a container. What torch brings for NVIDIA GPUs is most of the image; for a small one that only knows the CPU,
# name the index of CPU builds that PyTorch's install page gives:
#   docker build --build-arg TORCH_INDEX_URL=<that address> --tag torchlight .

FROM python:3.11-slim-bookworm AS dependencies
ARG TORCH_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.txt /build/
WORKDIR /build
# Another index has other files of the same version, so the hashes of torch and torchvision cannot hold for them: these two come
# at the pinned version but unverified, everything else with its hash. pip check says if the two halves do not fit.
RUN if [ -z "$TORCH_INDEX_URL" ]; then \
        pip install --require-hashes --requirement requirements.txt; \
    else \
        awk '/^[a-z]/ {torch = /^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/} !torch' requirements.txt > others.txt && \
        pip install --require-hashes --no-deps --requirement others.txt && \
        pip install --no-deps --index-url "$TORCH_INDEX_URL" $(grep -oE '^(torch|torchvision)==[0-9.]+' requirements.txt); \
    fi && pip check

FROM dependencies AS project
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
