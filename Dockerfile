# The program with ONNX Runtime on the CPU:
#   docker build --tag rerank .
#   docker run --rm --volume "$PWD:/data" rerank run pairs.parquet scored.parquet --model tiny
# On NVIDIA GPUs:
#   docker build --tag rerank:cuda --target cuda .
#   docker run --rm --gpus all --volume "$PWD:/data" rerank:cuda run pairs.parquet scored.parquet --model m3 --device cuda:0

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package rerank

FROM python:3.12-slim-bookworm AS onnxruntime
WORKDIR /source
COPY .ci/fetch_onnxruntime.py .
RUN python fetch_onnxruntime.py 1.32.0 /opt/onnxruntime

# The GPU build of ONNX Runtime is a Python package whose libraries are opened from where pip puts them. It needs CUDA 13
# and no cuDNN.
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-pip \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir --break-system-packages --no-deps --target /opt/onnxruntime onnxruntime-gpu==1.31.1 \
    && ln -s "$(basename /opt/onnxruntime/onnxruntime/capi/libonnxruntime.so.*)" /opt/onnxruntime/onnxruntime/capi/libonnxruntime.so
ENV ORT_DYLIB_PATH=/opt/onnxruntime/onnxruntime/capi/libonnxruntime.so
COPY --from=build /source/target/release/rerank /usr/local/bin/rerank
RUN useradd --create-home rerank
USER rerank
WORKDIR /data
ENTRYPOINT ["rerank"]

FROM debian:bookworm-slim AS cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgomp1 \
    && rm -rf /var/lib/apt/lists/*
# Libraries beside the program are found without being named.
COPY --from=onnxruntime /opt/onnxruntime/ /usr/local/bin/
COPY --from=build /source/target/release/rerank /usr/local/bin/rerank
RUN useradd --create-home rerank
USER rerank
WORKDIR /data
ENTRYPOINT ["rerank"]
