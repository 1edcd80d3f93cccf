"""Python's Kubernetes client as a user of a virtual cluster: clients.py KUBECONFIG NAMESPACE POD.

Prints one word for each thing that worked; whatever goes wrong ends it with its own exception.
"""
import sys

from kubernetes import client, config, watch
from kubernetes.stream import stream


def main():
    kubeconfig, namespace, pod = sys.argv[1:]
    config.load_kube_config(config_file=kubeconfig)
    core = client.CoreV1Api()
    assert pod in [p.metadata.name for p in core.list_namespaced_pod(namespace).items]
    print("list")

    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="from-python"), data={"a": "b"})
    core.create_namespaced_config_map(namespace, body)
    for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, timeout_seconds=30):
        if event["object"].metadata.name == "from-python":
            break
    else:
        raise RuntimeError("the watch did not show it")
    print("watch")

    said = stream(core.connect_get_namespaced_pod_exec, pod, namespace, command=["echo", "from", "inside"],
                  stderr=True, stdin=False, stdout=True, tty=False)
    assert said == "from inside\n", said
    print("exec")

    assert isinstance(core.read_namespaced_pod_log(pod, namespace), str)
    print("log")

    try:
        core.read_namespaced_pod("nobody", namespace)
        raise RuntimeError("there is no such pod")
    except client.ApiException as error:
        assert error.status == 404 and '"reason":"NotFound"' in error.body.replace(" ", ""), error.body
    print("status")


main()
