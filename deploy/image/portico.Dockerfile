# The build context holds the static binary (make image). Nothing is written at run time: the root may be read-only.
# No CAs: every server that Portico dials is checked by the CA that its kubeconfig names.
FROM scratch
COPY --chmod=0755 portico /portico
USER 65532:65532
ENTRYPOINT ["/portico"]
CMD ["serve"]
