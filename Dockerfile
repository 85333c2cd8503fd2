# The one binary, and nothing else: no shell, no package manager, no root.
#
#   docker build -t mailcutover .
#   docker run --read-only --cap-drop ALL -v mailcutover:/var/lib/mailcutover \
#     -v /etc/mailcutover:/etc/mailcutover:ro -p 25:2525 mailcutover
#
# The process listens as user 65532: give it ports above 1024, or --cap-add NET_BIND_SERVICE.
# /var/lib/mailcutover is all that it writes. It has the spool: use storage that survives.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /out/mailcutover ./cmd/mailcutover \
 && mkdir -p /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/mailcutover /usr/bin/mailcutover
COPY --from=build --chown=65532:65532 --chmod=0700 /out/data /var/lib/mailcutover
USER 65532:65532
VOLUME /var/lib/mailcutover
EXPOSE 2525 8025 8026
# Whether the process answers; whether it takes mail, health --ready says.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/usr/bin/mailcutover", "health"]
ENTRYPOINT ["/usr/bin/mailcutover"]
CMD ["serve", "--config", "/etc/mailcutover/mailcutover.yaml"]
