FROM scratch
COPY rootfs /
ENV PATH=/bin
CMD ["sh"]
