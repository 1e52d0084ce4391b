"""Fixtures for all tests in Python. A server that cannot be had is an error, never a skip."""

import pathlib
import signal
import sys
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))

from tailrace_test import Agent, Certs, Elastic, FaultServer, KubeApi, Loki  # noqa: E402


def pytest_configure():
    """SIGTERM is taken like Ctrl-C: the servers are stopped before the end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _running(server):
    """A session's server; restarted when a test left it stopped."""
    if server.process is None or not server.process.running():
        server.process = None
        server.start()
    return server


@pytest.fixture(scope="session")
def _loki(tmp_path_factory):
    server = Loki(tmp_path_factory.mktemp("loki"))
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def _elasticsearch(tmp_path_factory):
    server = Elastic(tmp_path_factory.mktemp("elasticsearch"), "elasticsearch")
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def _opensearch(tmp_path_factory):
    server = Elastic(tmp_path_factory.mktemp("opensearch"), "opensearch")
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def _kube(tmp_path_factory):
    server = KubeApi(tmp_path_factory.mktemp("kube"))
    yield server.start()
    server.stop()


@pytest.fixture
def kube(_kube):
    """One API server for the session. Keep apart by namespace and node."""
    return _running(_kube)


@pytest.fixture
def loki(_loki):
    """One Loki for the session. Keep apart by `tenant`; for own limits start a Loki of your own."""
    return _running(_loki)


@pytest.fixture
def elasticsearch(_elasticsearch):
    """One Elasticsearch for the session. Keep apart by `index`."""
    return _running(_elasticsearch)


@pytest.fixture
def opensearch(_opensearch):
    """One OpenSearch for the session. Keep apart by `index`."""
    return _running(_opensearch)


@pytest.fixture(params=["elasticsearch", "opensearch"])
def search(request):
    """The test runs twice: against Elasticsearch and against OpenSearch."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def tenant():
    """A Loki tenant that no other test uses."""
    return "t-" + uuid.uuid4().hex[:12]


@pytest.fixture
def index():
    """An index name that no other test uses; as a prefix it serves too."""
    return "i-" + uuid.uuid4().hex[:12]


@pytest.fixture
def faults(request):
    """Makes scripted servers: faults(tls=certs.server). All are stopped at the end, a broken script fails the test."""
    servers = []

    def make(**kw):
        servers.append(FaultServer(**kw))
        return servers[-1]

    yield make
    errors = []
    for server in servers:
        server.stop()
        errors += server.errors
    assert not errors, f"the script of a server failed: {errors!r}"


@pytest.fixture
def certs(tmp_path):
    return Certs(tmp_path)


@pytest.fixture
def agent(request, tmp_path):
    """Makes agents: a = agent(config); it runs and is ready unless start=False. At the end each is stopped by SIGTERM
    and must exit with 0; one that ended by itself, or a sanitizer's word in its log, fails the test."""
    agents = request.node._agents = []

    def make(config, name=None, start=True, **kw):
        name = name or f"agent{len(agents) or ''}"
        a = Agent(tmp_path / name, config, name=name, **kw)
        agents.append(a)
        return a.start() if start else a

    yield make
    problems = []
    for a in agents:
        try:
            a.close()
        except AssertionError as e:
            problems.append(str(e))
        finally:
            if a.process:
                a.process.kill()
    assert not problems, "\n".join(problems)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for a in getattr(item, "_agents", ()):
            report.sections.append((f"log of {a.name}", a.describe()))
