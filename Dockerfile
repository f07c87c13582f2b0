# One image, several commands: `reception serve`, `reception migrate`, `reception doctor`.
FROM debian:12-slim AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends \
    python3 python3-venv python3-dev gcc libc6-dev make ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN make setup && rm -rf web/node_modules
# The user who serves may not write here: without bytecode every start would compile everything again,
# and a talk waits for the start after a crash. The image does not change, so nothing is compared.
# Packages may ship a file for another Python, which compiles nowhere; ours must.
RUN compile=".venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash" \
    && ($compile .venv/lib || true) \
    && $compile app cases core media migrations scheduling signaling

FROM debian:12-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends \
    python3 libstdc++6 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --home-dir /var/lib/reception --create-home reception
COPY --from=build /app /app
WORKDIR /app
USER reception
ENV PATH=/app/.venv/bin:$PATH RECEPTION_VAR_DIR=/var/lib/reception RECEPTION_HOST=0.0.0.0 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
EXPOSE 8080/tcp 8444/udp
VOLUME /var/lib/reception
CMD ["reception", "serve"]
