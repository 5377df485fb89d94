# One node. `docker run -p 8080:8080 -v quire:/data IMAGE --auth` is a server on its own, for which
# `docker exec CONTAINER quire token --document '*' --user me` makes a token; docker-compose.yml is three of them.

FROM rust:1.95-slim-bookworm AS builder
WORKDIR /quire
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY benches benches
COPY web-demo/dist web-demo/dist
# What was compiled is kept between builds, beside the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/quire/target \
    cargo build --release --locked && cp target/release/quire /usr/local/bin/

FROM debian:bookworm-slim
# Which certificates a Redis behind TLS may show.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=builder /usr/local/bin/quire /usr/local/bin/
COPY deploy/healthcheck /usr/local/bin/healthcheck
RUN useradd --system --uid 10001 quire && install -d -o quire /data
USER quire
ENV QUIRE_LISTEN=0.0.0.0:8080 QUIRE_DATA=/data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["healthcheck"]
ENTRYPOINT ["quire"]
