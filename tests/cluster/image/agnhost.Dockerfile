FROM scratch
COPY rootfs /
COPY agnhost /agnhost
ENV PATH=/bin
ENTRYPOINT ["/agnhost"]
CMD ["pause"]
