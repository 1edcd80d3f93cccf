#!/usr/bin/env python3
"""Builds an OCI image archive from a `FROM scratch` Dockerfile, without Docker and without root.

image.py DOCKERFILE CONTEXT NAME OUT

Understands FROM scratch, COPY [--chmod=MODE] SOURCE DESTINATION, ENV K=V, USER, WORKDIR, EXPOSE, ENTRYPOINT [..], CMD [..],
LABEL K=V: one layer, no time stamps, so the same input gives the same bytes. Prints the digest of the manifest.
"""
import hashlib
import io
import json
import os
import platform
import shlex
import sys
import tarfile

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def instructions(path):
    with open(path, encoding="utf-8") as f:
        text = f.read().replace("\\\n", " ")
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word.upper(), rest.strip()


class Layer:
    """A tar of the root file system, entries in the order they come, parents first."""

    def __init__(self, out):
        self.tar = tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT)
        self.seen = set()

    def add(self, source, name, mode=None):
        name = name.strip("/")
        if os.path.islink(source):
            self.entry(name, tarfile.SYMTYPE, 0o777, link=os.readlink(source))
        elif os.path.isdir(source):
            if name:
                self.directory(name, os.stat(source).st_mode & 0o7777)
            for child in sorted(os.listdir(source)):
                self.add(os.path.join(source, child), f"{name}/{child}", mode)
        else:
            self.file(source, name, mode)

    def parents(self, name):
        parts = name.split("/")[:-1]
        for i in range(1, len(parts) + 1):
            self.directory("/".join(parts[:i]), 0o755)

    def directory(self, name, mode):
        if name not in self.seen:
            self.entry(name, tarfile.DIRTYPE, mode)

    def entry(self, name, kind, mode, link=""):
        self.parents(name)
        self.seen.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname = kind, mode, link
        self.tar.addfile(info)

    def file(self, source, name, mode):
        self.parents(name)
        self.seen.add(name)
        info = tarfile.TarInfo(name)
        with open(source, "rb") as f:
            stat = os.fstat(f.fileno())
            info.size = stat.st_size
            info.mode = mode if mode is not None else (0o755 if stat.st_mode & 0o111 else 0o644)
            self.tar.addfile(info, f)


def digest_of_file(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            h.update(chunk)
    return "sha256:" + h.hexdigest()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def build(dockerfile, context, layer_path):
    config = {"Env": [DEFAULT_PATH]}
    with open(layer_path, "wb") as out:
        layer = Layer(out)
        for word, rest in instructions(dockerfile):
            if word == "FROM":
                if rest != "scratch":
                    sys.exit(f"{dockerfile}: only FROM scratch is understood, not FROM {rest}")
            elif word == "COPY":
                args = shlex.split(rest)
                mode = None
                if args[0].startswith("--chmod="):
                    mode = int(args.pop(0).split("=")[1], 8)
                source, destination = args
                source = os.path.join(context, source)
                if destination.endswith("/") and destination != "/":
                    destination += os.path.basename(source)
                layer.add(source, destination, mode)
            elif word == "ENV":
                for pair in shlex.split(rest):
                    key = pair.partition("=")[0] + "="
                    config["Env"] = [e for e in config["Env"] if not e.startswith(key)] + [pair]
            elif word in ("ENTRYPOINT", "CMD"):
                config[word.capitalize()] = json.loads(rest)
            elif word == "USER":
                config["User"] = rest
            elif word == "WORKDIR":
                config["WorkingDir"] = rest
            elif word == "EXPOSE":
                config["ExposedPorts"] = {p if "/" in p else p + "/tcp": {} for p in rest.split()}
            elif word == "LABEL":
                config.setdefault("Labels", {}).update(pair.split("=", 1) for pair in shlex.split(rest))
            else:
                sys.exit(f"{dockerfile}: {word} is not understood")
        layer.tar.close()
    return config


def main():
    dockerfile, context, name, out = sys.argv[1:]
    layer_path = out + ".layer"
    config = build(dockerfile, context, layer_path)
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of_file(layer_path), "size": os.path.getsize(layer_path)}
    config = json.dumps({"architecture": ARCH, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode()
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
        "layers": [layer],
    }).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]},
    }]}).encode()
    with tarfile.open(out + ".new", "w", format=tarfile.GNU_FORMAT) as archive:
        def put(path, data):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        put("index.json", index)
        for blob in (config, manifest):
            put("blobs/sha256/" + digest(blob)[7:], blob)
        info = tarfile.TarInfo("blobs/sha256/" + layer["digest"][7:])
        info.size = layer["size"]
        with open(layer_path, "rb") as f:
            archive.addfile(info, f)
    os.remove(layer_path)
    os.rename(out + ".new", out)
    print(digest(manifest))


if __name__ == "__main__":
    main()
