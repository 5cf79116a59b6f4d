# The proxy alone: no development certificates, no identity provider, no shell, no root.

FROM rust:1.95-slim-bookworm AS build
# The cryptography library is C and assembly.
RUN apt-get update && apt-get install --yes --no-install-recommends cmake gcc g++ make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked --no-default-features --bin gatepost
# An empty folder with the right owner for the journal's volume.
RUN mkdir /journal

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/gatepost /usr/local/bin/gatepost
COPY --from=build --chown=nonroot:nonroot /journal /var/lib/gatepost/audit
USER nonroot:nonroot
VOLUME /var/lib/gatepost/audit
EXPOSE 6432 9090
ENTRYPOINT ["/usr/local/bin/gatepost"]
CMD ["serve", "--config", "/etc/gatepost/gatepost.yaml"]
