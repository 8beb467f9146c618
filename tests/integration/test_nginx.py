"""The static registry behind a real nginx, over TLS with a CA of its own."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core.errors import PermanentError, TransientError
from agent.registries.download import download
from agent.registries.http import HttpConfig, HttpRegistry
from simulators.oci_registry import free_port
from simulators.registry_server import RegistryServer
from tests.certificates import Authority
from tests.tools import until

pytestmark = pytest.mark.needs("nginx", "openssl")
MODEL = bytes(range(256)) * 2000

CONFIG = """
{user}daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {cert}; ssl_certificate_key {key};
    root {folder}/www;
    location / {{ if ($http_authorization != "Bearer abc") {{ return 401; }} }}
    location /moved/ {{ return 302 /m/$uri; }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path):
    """A server for ``folder/www`` that wants the token ``abc``; its port and the CA."""
    authority, port = Authority(folder / "ca"), free_port()
    cert, key = authority.issue("server")
    config = folder / "nginx.conf"
    user = "user root; " if os.geteuid() == 0 else ""  # folders of tests are closed to others
    config.write_text(CONFIG.format(user=user, folder=folder, port=port, cert=cert, key=key))
    process = subprocess.Popen(["/usr/sbin/nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield port, authority.ca
    finally:
        process.terminate()
        process.wait(20)


async def test_a_version_is_found_fetched_and_resumed(tmp_path):
    """ETag, Range, bearer token and private CA, all at once; without token or CA nothing."""
    www = tmp_path / "www" / "m"
    www.mkdir(parents=True)
    with RegistryServer() as made:  # the files of a registry, without its server
        made.publish("m", "1", MODEL)
        (www / "index.json").write_bytes(made.index("m"))
        (www / "m-1.onnx").write_bytes(MODEL)
    (tmp_path / "token").write_text("abc\n")
    with nginx(tmp_path) as (port, ca):
        token = {"token": {"file": str(tmp_path / "token")}}

        def registry(**more):
            raw = {"type": "http", "url": f"https://127.0.0.1:{port}", "timeout": "5s"}
            return HttpRegistry("main", HttpConfig.model_validate(raw | more))

        async def there():
            try:
                return await registry(ca=ca, **token).resolve("m", "stable", None)
            except TransientError:
                return None

        await until(there, 10)
        good = registry(ca=ca, **token)
        offer = await good.resolve("m", "stable", None)
        assert await good.resolve("m", "stable", offer.token) is None
        part = tmp_path / "d" / f"{offer.sha256}.part"
        part.parent.mkdir()
        part.write_bytes(MODEL[:100_001])
        assert (await download(good, offer, part.parent)).read_bytes() == MODEL
        with pytest.raises(PermanentError, match="E622"):
            await registry(ca=ca).resolve("m", "stable", None)
        with pytest.raises(TransientError, match="E620"):
            await registry(**token).resolve("m", "stable", None)
