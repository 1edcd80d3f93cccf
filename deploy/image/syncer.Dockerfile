# The sidecar form: the same binary as deploy/image/portico.Dockerfile, in a manifest of the vcluster 0.3 era, whose syncer
# container has arguments and no command. It runs as root, like k3s in the same pod, whose keys only root may read; nothing
# is written at run time.
# No CAs: every server that Portico dials is checked by the CA that its kubeconfig names.
FROM scratch
COPY --chmod=0755 portico /portico
USER 0:0
EXPOSE 8443 8444
ENTRYPOINT ["/portico", "syncer"]
