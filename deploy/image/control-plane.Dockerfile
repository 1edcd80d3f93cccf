# The build context holds the static binary and the CAs of Debian's ca-certificates (make image). Everything is written to
# --data-dir: the root may be read-only. Time zones are in the binary.
FROM scratch
COPY --chmod=0755 control-plane /control-plane
# What an API server checks others by where it is not given a CA: webhooks by url, OIDC issuers, databases.
COPY --chmod=0644 ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Half the usual heap headroom: 10 % less memory for a virtual cluster, and no more CPU that could be measured.
ENV GOGC=50
USER 65532:65532
EXPOSE 6443
ENTRYPOINT ["/control-plane"]
