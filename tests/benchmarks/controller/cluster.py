"""A control plane with a scheduler, kwok for a kubelet, and a process that stands in for session pods and volumes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.apiserver import ROOT, ApiServer
from tests.benchmarks.controller import audit
from tests.cluster import binaries, processes
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.integration.controller_stand_ins import wait_until_served
from tests.waiting import eventually
from whatsapp_operator.api import names

NODES: Final = 10
VOLUME: Final = "shared"
"""Every claim is bound to it: the scheduler asks only that there is one."""

CONTROLLER_MANAGER: Final = ("--controllers=serviceaccount-controller",)
"""Not the controllers of volumes and nodes, whose part kwok and the stand-in play."""
SCHEDULER: Final = ("--leader-elect=false", "--secure-port=0", "--kube-api-qps=5000", "--kube-api-burst=5000")
"""By default it binds 50 pods a second, which would be all that is measured."""

_NODE_STATUS: Final = """\
conditions:
- type: Ready
  status: "True"
  reason: KubeletReady
  message: ""
  lastHeartbeatTime: {{ Now | Quote }}
  lastTransitionTime: {{ Now | Quote }}
{{ range $field := (list "capacity" "allocatable") }}
{{ $field }}:
  cpu: "1000"
  memory: 10Ti
  pods: "2000"
{{ end }}
"""
_POD_STATUS: Final = """\
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
{{ range $type := (list "Initialized" "ContainersReady" "Ready") }}
- type: {{ $type }}
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state:
    running:
      startedAt: {{ $now | Quote }}
{{ end }}
"""


def stage(name: str, kind: str, do: dict[str, Any], **when: tuple[str, ...]) -> dict[str, Any]:
    """What kwok is to do with an object; `when` has an operator and its values for each field that decides."""
    fields = {
        "deletion": ".metadata.deletionTimestamp",
        "phase": ".status.phase",
        "ready": '.status.conditions.[] | select( .type == "Ready" ) | .status',
    }
    selected: list[dict[str, Any]] = []
    for field, values in when.items():
        if values[0] in ("Exists", "DoesNotExist"):
            selected.append({"key": fields[field], "operator": values[0]})
        else:
            selected.append({"key": fields[field], "operator": values[0], "values": list(values[1:])})
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": selected},
            "next": do,
        },
    }


# What a kubelet without probes does, in one write: a pod that is bound runs, one that is deleted is gone.
STAGES: Final = (
    stage("node-ready", "Node", {"statusTemplate": _NODE_STATUS}, ready=("NotIn", "True")),
    stage("run", "Pod", {"statusTemplate": _POD_STATUS}, deletion=("DoesNotExist",), phase=("In", "Pending")),
    stage("end", "Pod", {"delete": True}, deletion=("Exists",)),
)


@dataclass
class Cluster:
    """A cluster that is up; `pids` names its processes, but for those that a scenario starts."""

    api: ApiServer
    plane: ControlPlane
    audit_log: Path
    pids: dict[str, int]

    def start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """A process that ends with the cluster."""
        log = self.plane.directory / f"{name}.log"
        process = processes.start(command, mark=str(self.plane.directory), log=log, die_with_parent=True)
        self.pids[name] = process.pid
        return process

    def explain(self) -> str:
        """The end of every log."""
        logs = sorted(self.plane.directory.glob("*.log"))
        return "\n".join(f"--- {log.stem}\n{processes.tail(log)[-3000:]}" for log in logs)

    def audit_offset(self) -> int:
        return self.audit_log.stat().st_size

    def make_namespace(self, name: str) -> None:
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        eventually(lambda: self.api.find(account), f"the account of {name}", every=0.02)


@contextmanager
def cluster(directory: Path, *, pods: bool = True) -> Iterator[Cluster]:
    """`pods`: with the stand-in of session pods and volumes; a raw writer does their part itself."""
    scheduler = binaries.ensure("kubernetes", ["kube-scheduler"]) / "kube-scheduler"
    kwok = binaries.ensure("kwok") / "kwok"
    policy, log = directory / "audit-policy.json", directory / "audit.log"
    policy.write_text(json.dumps(audit.POLICY))
    stages = directory / "stages.yaml"
    stages.write_text(yaml.safe_dump_all(STAGES))
    # By default it is rotated at 100 MB, in the middle of what is counted.
    flags = (f"--audit-policy-file={policy}", f"--audit-log-path={log}", "--audit-log-maxsize=1000000")
    with ExitStack() as stack:
        plane = stack.enter_context(control_plane(flags, CONTROLLER_MANAGER))
        api = ApiServer.from_kubeconfig(plane.kubeconfig)
        marked = {Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in processes.marked(str(plane.directory))}
        # The kernel cuts a name after 15 letters.
        pids = {
            "bench": os.getpid(),
            "apiserver": marked["kube-apiserver"],
            "etcd": marked["etcd"],
            "manager": marked["kube-controller"],
        }
        found = Cluster(api, plane, log, pids)
        api.install()
        wait_until_served(api)
        _make_nodes(api)
        config = f"--kubeconfig={plane.kubeconfig}"
        started = [
            found.start("scheduler", [str(scheduler), config, *SCHEDULER]),
            found.start("kwok", [str(kwok), config, f"--config={stages}", "--manage-all-nodes"]),
        ]
        if pods:
            module = [sys.executable, "-m", "tests.benchmarks.controller.pods", str(plane.kubeconfig)]
            environment = f"PYTHONPATH={ROOT / 'operator'}:{ROOT}"
            started.append(found.start("pods", ["env", environment, *module]))
        try:
            yield found
        finally:
            for process in started:
                process.kill()
                process.wait()


def _make_nodes(api: ApiServer) -> None:
    for number in range(NODES):
        name = f"node-{number}"
        api.create("/api/v1/nodes", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
        # Admission taints every new node, and the controller that would lift it does not run.
        api.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOncePod"],
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": "/nowhere"},
    }
    api.create("/api/v1/persistentvolumes", {"metadata": {"name": VOLUME}, "spec": spec})


def manifest(number: int) -> dict[str, Any]:
    """The session of that number; ten share a tenant."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": f"session-{number}"},
        "spec": {"tenant": f"tenant-{number // 10}", "phone": f"+1555{number:07}"},
    }
