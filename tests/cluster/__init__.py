"""A real Kubernetes on one machine, without a container engine, from pinned Go modules and Debian packages.

`python -m tests.cluster --help` lists the commands. The modules:

- `binaries`: builds the pinned programs once into the user cache;
- `packages`: the Debian packages; `preflight`: what this machine lacks;
- `pki`, `kubeapi`, `processes`: certificates, a minimal API client, processes found by a mark;
- `control_plane`: etcd, kube-apiserver, kube-controller-manager, alone for integration tests or in the cluster;
- `namespace`, `node`, `addons`, `cluster`: the one-node cluster, all of it inside namespaces of its own;
- `images`, `oci`: images built and loaded without Docker;
- `context`: which cluster tests and make targets may act on.
"""
