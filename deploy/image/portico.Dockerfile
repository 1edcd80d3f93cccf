# The build context holds the static binary (make image). Nothing is written at run time: the root may be read-only.
FROM scratch
COPY --chmod=0755 portico /portico
USER 65532:65532
ENTRYPOINT ["/portico"]
CMD ["serve"]
