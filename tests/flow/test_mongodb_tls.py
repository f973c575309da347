"""MongoDB over TLS, with a CA of its own and client certificates: real ones, and every way in which they can be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError
from structlog.testing import capture_logs

from daemon.app import App
from daemon.check.mongodb import as_failure
from daemon.config.file import load
from daemon.demo.mongod import EmbeddedMongod
from daemon.demo.receiver import Receiver
from daemon.errors import ConfigurationError
from daemon.mongo import connect
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, payloads, running, write_config
from tests.flow.test_mongodb_faults import NOWHERE, failure_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server.pem, client.pem of one CA; other-ca.pem and other-client.pem of another; misnamed.pem for another host."""
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other-ca.pem"))
    certificates = {
        "server": ca.issue_cert("127.0.0.1"),
        "client": ca.issue_cert("relay.example.org", common_name="relay"),
        "other-client": other.issue_cert("relay.example.org", common_name="relay"),
        "misnamed": ca.issue_cert("mongo.example.org"),
    }
    for name, certificate in certificates.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    (folder / "no-certificate.pem").write_text("nothing of the kind", encoding="utf-8")
    return folder


def server(folder: Path, certificate: str = "server") -> EmbeddedMongod:
    """Takes connections over TLS only with a client certificate; without TLS too, so that its start can be awaited."""
    names = ("--tlsMode", "preferTLS", "--tlsCertificateKeyFile", str(folder / f"{certificate}.pem"))
    return EmbeddedMongod(arguments=(*names, "--tlsCAFile", str(folder / "ca.pem")))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mongod(folder: Path) -> AsyncIterator[EmbeddedMongod]:
    async with server(folder) as mongod:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri, tz_aware=True)
        await traffic.load_initial(client["rocketchat"])
        client.close()
        yield mongod


def over_tls(mongod: EmbeddedMongod, folder: Path, ca: str | None = "ca", certificate: str | None = "client") -> str:
    uri = f"{mongod.uri}&tls=true&serverSelectionTimeoutMS=500"
    uri += f"&tlsCAFile={folder / ca}.pem" if ca else ""
    return uri + (f"&tlsCertificateKeyFile={folder / certificate}.pem" if certificate else "")


@pytest.mark.asyncio(loop_scope="session")
async def test_relay_delivers(mongod: EmbeddedMongod, folder: Path, tmp_path: Path) -> None:
    want = traffic.expected("S1")
    writer: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri, tz_aware=True)
    async with Receiver(token=TOKEN) as receiver:
        async with running(write_config(tmp_path, uri=over_tls(mongod, folder), database="rocketchat", url=receiver.url)):
            await traffic.write(writer["rocketchat"], traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
    writer.close()


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("names", "hint"),
    [
        pytest.param((None, "client"), "tlsCAFile", id="CA not named"),
        pytest.param(("other-ca", "client"), "tlsCAFile", id="another CA"),
        pytest.param(("ca", None), "tlsCertificateKeyFile", id="no client certificate"),
        pytest.param(("ca", "other-client"), "tlsCertificateKeyFile", id="client certificate of another CA"),
    ],
)
async def test_relay_waits_and_tells_what_helps(
    mongod: EmbeddedMongod, folder: Path, tmp_path: Path, names: tuple[str | None, str | None], hint: str
) -> None:
    """It waits, since certificates are renewed; the log and `check` name the option."""
    config = load(write_config(tmp_path, uri=over_tls(mongod, folder, *names), database="rocketchat", url=NOWHERE))
    app, stop = App(config), asyncio.Event()
    with capture_logs() as lines:
        relay = asyncio.create_task(app.run(stop))
        await eventually(lambda: any(line["event"] == "capture.unreachable" for line in lines), "a relay that says so")
        assert app.health.not_ready() is not None
        stop.set()
        await relay
    (line,) = (line for line in lines if line["event"] == "capture.unreachable")
    assert hint in line["hint"]
    assert hint in await remedy_of_check(config.mongodb.connection_string())


async def remedy_of_check(uri: str) -> str:
    client = connect(uri)
    try:
        await client.admin.command("hello")
    except PyMongoError as error:
        return as_failure("mongodb.server", error, "MongoDB").remedy or ""
    finally:
        client.close()
    raise AssertionError("connected")


@pytest.mark.asyncio(loop_scope="session")
async def test_certificate_for_another_host(folder: Path) -> None:
    async with server(folder, "misnamed") as mongod:
        assert "as MongoDB's certificate names it" in await remedy_of_check(over_tls(mongod, folder))


@pytest.mark.asyncio(loop_scope="session")
async def test_server_without_tls(mongodb_uri: str, folder: Path) -> None:
    uri = f"{mongodb_uri}&tls=true&tlsCAFile={folder}/ca.pem&serverSelectionTimeoutMS=500"
    assert "speaks no TLS" in await remedy_of_check(uri)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("ca", "certificate"),
    [
        pytest.param("missing", "client", id="no CA file"),
        pytest.param("ca", "missing", id="no certificate file"),
        pytest.param("no-certificate", "client", id="a CA file without certificates"),
        pytest.param("ca", "ca", id="a certificate without key"),
    ],
)
async def test_files_that_cannot_be_used(mongod: EmbeddedMongod, folder: Path, tmp_path: Path, ca: str, certificate: str) -> None:
    config = write_config(tmp_path, uri=over_tls(mongod, folder, ca, certificate), database="rocketchat", url=NOWHERE)
    error = await failure_of(config)
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith("mongodb.uri: ")
