"""programs.py: the programs that are compared, each told to do the same work as far as it can: follow the files, parse
JSON, drop DEBUG, add a few fields, keep what is on its way on disk, send to the counting server.

Debian's rsyslog is always there (it has no durable queue here and sends without compression: less work). Fluent Bit,
Vector, Promtail and Filebeat take part when FLUENT_BIT, VECTOR, PROMTAIL or FILEBEAT names their binary. Promtail keeps
nothing on disk and parses the level alone: less work too.
"""
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import time

TOP = pathlib.Path("/proc")


@dataclasses.dataclass
class Result:
    cpu: float               # seconds, user and system
    wall: float              # seconds until nine tenths of the lines had arrived: the last batch waits for more
    rss: int                 # peak, bytes
    disk: int                # bytes written towards the disk
    server_cpu: float = 0.0


def cpu_of(pid):
    fields = (TOP / str(pid) / "stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(argv, server, arrived, timeout=300, env=None):
    """Runs argv until arrived() says when nine tenths were there (monotonic seconds), and stops it."""
    server_before, start = cpu_of(server.process.pid), time.monotonic()
    proc = subprocess.Popen(argv, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while (there := arrived()) is None:
            if proc.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended with {proc.returncode}")
            if time.monotonic() - start > timeout:
                raise RuntimeError(f"{argv[0]}: not all lines arrived within {timeout} s")
            time.sleep(0.05)
        status = (TOP / str(proc.pid) / "status").read_text()
        io = (TOP / str(proc.pid) / "io").read_text()
    finally:
        proc.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(proc.pid, 0)
        proc.returncode = 0
    return Result(cpu=usage.ru_utime + usage.ru_stime, wall=there - start,
                  rss=int(re.search(r"VmHWM:\s*(\d+)", status)[1]) * 1024,
                  disk=int(re.search(r"^write_bytes: (\d+)", io, re.M)[1]),
                  server_cpu=cpu_of(server.process.pid) - server_before)


class Program:
    """conf(): (argv, environment) for this workload and these outputs ("loki", "bulk")."""
    outputs = ("loki", "bulk")

    def __init__(self, name, binary):
        self.name, self.binary = name, binary

    def can(self, kinds):
        return all(k in self.outputs for k in kinds)

    def run(self, workload, kinds, server, tmp, strace=None):
        tmp.mkdir(parents=True)
        server.reset(**{k: workload.kept * 9 // 10 for k in kinds})
        argv = self.conf(workload, kinds, server, tmp)
        if strace:
            argv = ["strace", "-D", "-f", "-c", "-U", "name,calls", "-o", str(strace)] + argv

        def arrived():
            report = server.report()
            if any(report[k]["lines"] < workload.kept for k in kinds):
                return None
            if any(report[k]["lines"] > workload.kept for k in kinds):
                raise RuntimeError(f"{self.name}: more lines arrived than were to be kept")
            return max(report[k]["mark_ns"] for k in kinds) / 1e9
        return measure(argv, server, arrived)


class Tailrace(Program):
    def conf(self, w, kinds, server, tmp):
        outs = {"loki": f'  loki: {{ type: loki, url: "{server.url}", max_age: 0 }}\n',
                "bulk": f'  search: {{ type: elasticsearch, url: "{server.url}", template: "off" }}\n'}
        conf = tmp / "tailrace.yaml"
        conf.write_text(f"""state_dir: {tmp}/state
admin: {{ listen: "" }}
inputs:
  bench:
    type: file
    include: ["{w.logs}/*.log"]
    format: {w.format}
    tenant: bench
    levels: "{w.levels}"
    fields: {{ namespace: bench, pod: "{{host}}" }}
outputs:
{"".join(outs[k] for k in kinds)}""")
        return [self.binary, "run", "-c", str(conf)]


class Rsyslog(Program):
    outputs = ("bulk",)

    def can(self, kinds):
        return tuple(kinds) == ("bulk",)

    def conf(self, w, kinds, server, tmp):
        conf = tmp / "rsyslog.conf"
        conf.write_text(f"""global(workDirectory="{tmp}" maxMessageSize="64k")
module(load="imfile" mode="inotify")
module(load="mmjsonparse")
module(load="omelasticsearch")
template(name="doc" type="list") {{ property(name="$!all-json-plain") }}
input(type="imfile" File="{w.logs}/*.log" Tag="bench" ruleset="out" readTimeout="0")
ruleset(name="out" queue.type="LinkedList" queue.size="200000" queue.dequeueBatchSize="5000" queue.workerThreads="1") {{
  action(type="mmjsonparse" cookie="")
  if $!level == "DEBUG" or $!level == "debug" or $!level == "20" then stop
  set $!host_name = $hostname;
  set $!namespace = "bench";
  set $!pod = $hostname;
  action(type="omelasticsearch" server="127.0.0.1" serverport="{server.port}" template="doc" searchIndex="bench"
         bulkmode="on" maxbytes="10m" action.resumeRetryCount="-1")
}}
""")
        return [self.binary, "-n", "-f", str(conf), "-i", str(tmp / "pid")]


class FluentBit(Program):
    def conf(self, w, kinds, server, tmp):
        (tmp / "parsers.conf").write_text("[PARSER]\n    Name json\n    Format json\n")
        outs = {"loki": f"[OUTPUT]\n    Name loki\n    Match *\n    Host 127.0.0.1\n    Port {server.port}\n"
                        "    Labels job=bench\n    Compress gzip\n    Line_Format json\n",
                "bulk": f"[OUTPUT]\n    Name es\n    Match *\n    Host 127.0.0.1\n    Port {server.port}\n"
                        "    Index bench\n    Compress gzip\n    Suppress_Type_Name On\n    Generate_ID On\n"}
        conf = tmp / "fluent-bit.conf"
        conf.write_text(f"""[SERVICE]
    Flush 1
    Parsers_File {tmp}/parsers.conf
    storage.path {tmp}/storage
    storage.sync normal
[INPUT]
    Name tail
    Path {w.logs}/*.log
    Parser json
    Read_from_Head On
    DB {tmp}/positions.db
    storage.type filesystem
    Buffer_Max_Size 2M
[FILTER]
    Name grep
    Match *
    Exclude level ^(DEBUG|debug|20)$
[FILTER]
    Name record_modifier
    Match *
    Record namespace bench
    Record pod ${{HOSTNAME}}
{"".join(outs[k] for k in kinds)}""")
        return [self.binary, "-c", str(conf)]


class Vector(Program):
    def conf(self, w, kinds, server, tmp):
        outs = {"loki": f"""
[sinks.loki]
type = "loki"
inputs = ["kept"]
endpoint = "{server.url}"
encoding.codec = "json"
compression = "snappy"
labels.job = "bench"
healthcheck.enabled = false
buffer = {{ type = "disk", max_size = 1073741824 }}
""", "bulk": f"""
[sinks.search]
type = "elasticsearch"
inputs = ["kept"]
endpoints = ["{server.url}"]
api_version = "v8"
bulk.index = "bench"
compression = "gzip"
healthcheck.enabled = false
buffer = {{ type = "disk", max_size = 1073741824 }}
"""}
        (tmp / "data").mkdir()
        conf = tmp / "vector.toml"
        conf.write_text(f"""data_dir = "{tmp}/data"
[sources.logs]
type = "file"
include = ["{w.logs}/*.log"]
read_from = "beginning"
[transforms.parsed]
type = "remap"
inputs = ["logs"]
source = '''
. = parse_json!(string!(.message))
.namespace = "bench"
.pod = "bench"
'''
[transforms.kept]
type = "filter"
inputs = ["parsed"]
condition = '.level != "DEBUG" && .level != "debug" && .level != 20'
{"".join(outs[k] for k in kinds)}""")
        return [self.binary, "--quiet", "-c", str(conf)]


class Promtail(Program):
    outputs = ("loki",)

    def conf(self, w, kinds, server, tmp):
        conf = tmp / "promtail.yaml"
        conf.write_text(f"""server: {{ disable: true }}
positions: {{ filename: {tmp}/positions.yaml }}
clients: [ {{ url: "{server.url}/loki/api/v1/push" }} ]
scrape_configs:
  - job_name: bench
    static_configs: [ {{ targets: [localhost], labels: {{ job: bench, __path__: "{w.logs}/*.log" }} }} ]
    pipeline_stages:
      - json: {{ expressions: {{ level: level }} }}
      - drop: {{ source: level, expression: "^(DEBUG|debug|20)$" }}
""")
        return [self.binary, "-config.file", str(conf)]


class Filebeat(Program):
    outputs = ("bulk",)

    def can(self, kinds):
        return tuple(kinds) == ("bulk",)

    def conf(self, w, kinds, server, tmp):
        conf = tmp / "filebeat.yml"
        conf.write_text(f"""path.data: {tmp}/data
path.logs: {tmp}/logs
logging.level: warning
filebeat.inputs:
  - type: log
    paths: ["{w.logs}/*.log"]
    json: {{ keys_under_root: true, overwrite_keys: true, add_error_key: true }}
    fields: {{ namespace: bench, pod: bench }}
    fields_under_root: true
processors:
  - drop_event: {{ when: {{ or: [ {{ equals: {{ level: DEBUG }} }}, {{ equals: {{ level: debug }} }}, {{ equals: {{ level: 20 }} }} ] }} }}
queue.disk: {{ max_size: 1GB }}
setup.template.enabled: false
setup.ilm.enabled: false
output.elasticsearch: {{ hosts: ["{server.url}"], index: bench, compression_level: 1, bulk_max_size: 2000, worker: 1 }}
""")
        conf.chmod(0o600)
        return [self.binary, "-e", "-c", str(conf)]


class Floor(Program):
    """floor.c on the same lines in one file: no following, no queue on disk, no network. Both outputs: one run each."""
    MODES = {"loki": "1", "bulk": "2"}

    def run(self, workload, kinds, server, tmp, strace=None):
        tmp.mkdir(parents=True)
        cpu, wall = 0.0, 0.0
        for kind in kinds:
            start = time.monotonic()
            proc = subprocess.Popen([self.binary, str(workload.plain), self.MODES[kind]], cwd=tmp,
                                    stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(proc.pid, 0)
            proc.returncode = status
            if status != 0:
                raise RuntimeError(f"the floor ended with {status}")
            cpu += usage.ru_utime + usage.ru_stime
            wall += time.monotonic() - start
        return Result(cpu=cpu, wall=wall, rss=0, disk=(tmp / "q.out").stat().st_size)


PEERS = {"FLUENT_BIT": ("fluent-bit", FluentBit), "VECTOR": ("vector", Vector), "PROMTAIL": ("promtail", Promtail),
         "FILEBEAT": ("filebeat", Filebeat)}


def peers(rsyslogd="/usr/sbin/rsyslogd"):
    found = [Rsyslog("rsyslog", rsyslogd)] if pathlib.Path(rsyslogd).exists() else []
    for variable, (name, cls) in PEERS.items():
        if os.environ.get(variable):
            found.append(cls(name, os.environ[variable]))
    return found
