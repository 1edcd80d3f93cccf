# Not k3s: the control plane's binary by k3s' name, for tests where k3s' image cannot be had (/bin/k3s --help).
# The build context holds the static binary and a root with busybox' applets and CAs (tests/cluster/images k3s-stand-in). As
# in k3s' image there is a shell, and root runs it.
FROM scratch
COPY rootfs /
COPY --chmod=0755 k3s /bin/k3s
ENV GOGC=50
EXPOSE 6443
ENTRYPOINT ["/bin/k3s"]
CMD ["agent"]
