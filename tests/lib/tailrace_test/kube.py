"""A real kube-apiserver with its etcd on loopback: RBAC, its own authority, an audit log. No kubelet, no controllers: pods are
objects that a test writes, as the kubelet would say of them."""

import json
import os
import pathlib
import signal
import ssl
import subprocess

from . import client
from .ports import free_port
from .proc import Process
from .servers import server_dir
from .wait import wait_until

# Everything but what the API server asks of itself, one line a request when it is answered (a watch: also when it begins).
AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:apiserver", "admin"]}
- {level: Metadata}
"""


class KubeApi:
    """start(), stop(), restart(), kill(); data and ports stay. A namespace that is made has its ServiceAccount `default`."""

    def __init__(self, tmpdir, watch_cache=True, flags=()):
        """watch_cache=False: a compaction of etcd ends watches with 410. flags: more of kube-apiserver's."""
        self.dir = pathlib.Path(tmpdir) / "kube"
        self.dir.mkdir(parents=True, exist_ok=True)
        self.port, self.etcd_port, self.peer_port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.etcd_url = f"http://127.0.0.1:{self.etcd_port}"
        self.ca, self.kubeconfig = self.dir / "ca.crt", self.dir / "kubeconfig"
        self.audit_log = self.dir / "audit.log"
        self.flags = list(flags) + ([] if watch_cache else ["--watch-cache=false"])
        self.etcd = self.process = None
        self._make_keys()
        self._context = ssl.create_default_context(cafile=str(self.ca))

    @staticmethod
    def binary(name):
        """kube-apiserver, kubectl, etcd, helm or kubeconform; schemas/ is kubeconform's."""
        return server_dir("kubernetes") / name

    def _openssl(self, *args):
        run = subprocess.run(["openssl", *args], cwd=self.dir, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"openssl {' '.join(args)}:\n{run.stderr}"

    def _make_keys(self):
        for name in ("ca", "server"):
            self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        self._openssl("req", "-x509", "-new", "-key", "ca.key", "-days", "30", "-subj", "/CN=test-ca", "-out", "ca.crt",
                      "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl("req", "-new", "-key", "server.key", "-subj", "/CN=kube-apiserver", "-out", "server.csr")
        (self.dir / "ext").write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc\nextendedKeyUsage=serverAuth\n")
        self._openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", "30", "-out", "server.crt", "-extfile", "ext")
        self._openssl("genrsa", "-out", "sa.key", "2048")
        self.token = os.urandom(16).hex()
        (self.dir / "tokens.csv").write_text(
            f'{self.token},admin,u-admin,"system:masters"\nnobody-token,nobody,u-nobody,\n')
        (self.dir / "audit.yaml").write_text(AUDIT)
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{"name": "t", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "admin"}}],
        }))

    # --- running ---

    def start(self, timeout=120):
        assert self.process is None, "this API server runs already"
        self.etcd = Process(
            [self.binary("etcd"), "--name", "default", "--data-dir", self.dir / "etcd", "--unsafe-no-fsync",
             "--listen-client-urls", self.etcd_url, "--advertise-client-urls", self.etcd_url,
             "--listen-peer-urls", f"http://127.0.0.1:{self.peer_port}",
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{self.peer_port}",
             "--initial-cluster", f"default=http://127.0.0.1:{self.peer_port}"], self.dir / "etcd", cwd=self.dir)
        self.process = Process(
            [self.binary("kube-apiserver"), f"--etcd-servers={self.etcd_url}", "--bind-address=127.0.0.1",
             f"--secure-port={self.port}", "--endpoint-reconciler-type=none",
             "--tls-cert-file=server.crt", "--tls-private-key-file=server.key", "--client-ca-file=ca.crt",
             "--service-account-issuer=https://kubernetes.default.svc",
             "--service-account-signing-key-file=sa.key", "--service-account-key-file=sa.key",
             "--service-cluster-ip-range=10.96.0.0/24", "--token-auth-file=tokens.csv", "--authorization-mode=RBAC",
             "--allow-privileged=true", "--profiling=false",
             "--audit-policy-file=audit.yaml", f"--audit-log-path={self.audit_log}", *self.flags],
            self.dir / "apiserver", cwd=self.dir)
        try:
            wait_until(self._ready, timeout, lambda: f"the API server is ready\n{self.process.describe()}", interval=0.1)
        except BaseException:
            self.kill()
            raise
        return self

    def _ready(self):
        for p in (self.etcd, self.process):
            assert p.running(), f"it ended while starting\n{p.describe()}"
        try:
            return self.request("GET", "/readyz", timeout=5).text == "ok"
        except OSError:
            return False

    def kill(self):
        """SIGKILL: without its etcd the API server would hang on SIGTERM."""
        for p in (self.process, self.etcd):
            if p:
                p.kill()
        self.process = self.etcd = None

    stop = kill

    def restart(self):
        """Both, on the same data and ports. What was compacted is then gone for every watch."""
        self.kill()
        return self.start()

    def suspend(self):
        """SIGSTOP: connections stand still, nothing is answered, until resume()."""
        self.process.signal(signal.SIGSTOP)

    def resume(self):
        self.process.signal(signal.SIGCONT)

    __enter__ = start

    def __exit__(self, *_):
        self.kill()

    # --- asking ---

    def request(self, method, path, body=None, params=None, token=None, headers=None, timeout=30):
        headers = {"Authorization": f"Bearer {token or self.token}", **(headers or {})}
        return client.request(method, self.url + path, body=body, params=params, headers=headers, timeout=timeout,
                              context=self._context)

    def get(self, path, **params):
        return self.request("GET", path, params=params).expect(200).json()

    def create(self, path, body):
        """201; 409 (it is there) is fine too."""
        return self.request("POST", path, body=body).expect(201, 409).json()

    def kubectl(self, *args, stdin=None, check=True):
        return self._run("kubectl", args, stdin, check)

    def helm(self, *args, stdin=None, check=True):
        return self._run("helm", args, stdin, check)

    def _run(self, name, args, stdin, check):
        env = dict(os.environ, KUBECONFIG=str(self.kubeconfig), HOME=str(self.dir))
        run = subprocess.run([self.binary(name), *map(str, args)], env=env, input=stdin, capture_output=True, text=True,
                             timeout=120, check=False)
        assert not check or run.returncode == 0, f"{name} {args}:\n{run.stdout}{run.stderr}"
        return run

    # --- objects ---

    def namespace(self, name, labels=None):
        self.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels or {}}})
        self.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return name

    def account(self, namespace, name, rules):
        """A ServiceAccount that may do what the RBAC rules say, cluster-wide; its token, good for an hour."""
        self.namespace(namespace)
        self.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        self.create(f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": rules})
        self.create(f"{rbac}/clusterrolebindings", {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]})
        return self.service_token(namespace, name)

    def service_token(self, namespace, name, seconds=3600):
        r = self.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
                         body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                               "spec": {"expirationSeconds": seconds}})
        return r.expect(201).json()["status"]["token"]

    def pod(self, namespace, name, labels=None, annotations=None, node="node-a", containers=("app",), owner=None, env=0):
        """Makes a pod that is bound to the node; the object. owner: (kind, name). env: bytes of specification."""
        meta = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
        if owner:
            meta["ownerReferences"] = [{"apiVersion": "apps/v1", "kind": owner[0], "name": owner[1], "controller": True,
                                        "uid": "00000000-0000-4000-8000-000000000000"}]
        more = {"env": [{"name": f"E{i}", "value": "x" * 1000} for i in range(env // 1000)]} if env else {}
        spec = {"nodeName": node, "containers": [{"name": c, "image": f"registry.test/{c}:1", **more} for c in containers]}
        return self.request("POST", f"/api/v1/namespaces/{namespace}/pods",
                            body={"metadata": meta, "spec": spec}).expect(201).json()

    def patch_pod(self, namespace, name, **metadata):
        """patch_pod(ns, name, annotations={...}): None removes a key."""
        r = self.request("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}", body=json.dumps({"metadata": metadata}),
                         headers={"Content-Type": "application/merge-patch+json"})
        return r.expect(200).json()

    def delete_pod(self, namespace, name):
        """At once, as the kubelet does at the end."""
        self.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", body={"gracePeriodSeconds": 0}).expect(200, 404)

    # --- what happened ---

    def compact(self):
        """etcd forgets its history: what watches from an older version is told 410 (without a watch cache)."""
        answer = client.request("POST", self.etcd_url + "/v3/kv/range", body={"key": "AA==", "limit": 1}).expect(200).json()
        body = {"revision": answer["header"]["revision"], "physical": True}
        client.request("POST", self.etcd_url + "/v3/kv/compaction", body=body).expect(200)

    def audited(self, user):
        """[(verb, path, code)] of a user, oldest first; a watch counts when it begins."""
        found = {}
        if self.audit_log.exists():
            for line in self.audit_log.read_text().splitlines():
                e = json.loads(line)
                if e["user"].get("username") == user:  # an unauthenticated one has no name
                    found.setdefault(e["auditID"], (e["verb"], e["requestURI"], e.get("responseStatus", {}).get("code")))
        return list(found.values())

    def asked(self, user, verb):
        """How many requests of this verb (list, watch, get) were begun by this user."""
        return sum(v == verb for v, _, _ in self.audited(user))
