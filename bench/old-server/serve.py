"""The Python server of mas-framework 0.4.5, as its own runner starts it, without agents.

serve.py REDIS_URL CERTS_FOLDER PAIRS: agents s0, s1, ... may send to r0, r1, ...; prints its address when it
listens, and ends with SIGTERM.
"""

import asyncio
import signal
import sys

from mas.gateway.config import FeaturesSettings, GatewaySettings, RateLimitSettings, RedisSettings
from mas.server import AgentDefinition, MASServer, MASServerSettings, TlsConfig

# More than is ever sent: its limit counts, and does not refuse.
UNREACHED = 1_000_000_000


async def main(redis_url: str, certs: str, pairs: int) -> None:
    names = [f"{kind}{number}" for kind in "sr" for number in range(pairs)]
    settings = MASServerSettings(
        redis_url=redis_url,
        listen_addr="localhost:0",
        tls=TlsConfig(
            server_cert_path=f"{certs}/server.pem",
            server_key_path=f"{certs}/server.key",
            client_ca_path=f"{certs}/ca.pem",
        ),
        agents={name: AgentDefinition(agent_id=name, capabilities=[], metadata={}) for name in names},
    )
    gateway = GatewaySettings(
        redis=RedisSettings(url=redis_url),
        rate_limit=RateLimitSettings(per_minute=UNREACHED, per_hour=UNREACHED),
        features=FeaturesSettings(dlp=True, rbac=True, circuit_breaker=True),
    )
    server = MASServer(settings=settings, gateway=gateway)
    await server.start()
    for number in range(pairs):
        await server.authz.add_permission(f"s{number}", f"r{number}")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(server.bound_addr, flush=True)
    await stop.wait()
    await server.stop()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
