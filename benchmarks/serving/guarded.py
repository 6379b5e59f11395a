"""What keys, limits, the audit log and tokens cost: the server's CPU per request, beside a server with none of them.

    python -m benchmarks.serving.guarded bundles/sentiment

The same model behind each. Clients on keep-alive connections ask one short text again as soon as they are answered; the
rounds of the servers alternate, and a ratio is of rounds that followed each other. Tokens are RS256, of an issuer whose
keys are a file. Writes results/guarded.json.
"""

import contextlib
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import jwt
import orjson
import uvloop
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm

from benchmarks.serving.client import closed_loop
from benchmarks.serving.servers import Server, served
from benchmarks.serving.texts import short_messages
from compression.measure.machine import this_machine
from service.access.caller import Limits
from service.access.keys import add_key

RESULTS = Path(__file__).resolve().parent / "results" / "guarded.json"
BODIES = [orjson.dumps({"model": "sentiment", "inputs": text}) for text in short_messages()]
ISSUER, AUDIENCE = "https://issuer.example", "lathe"
ENDLESS = 10**9
OPEN = "nothing"


@dataclass(frozen=True)
class Guard:
    """What a server asks of its clients, and what they send."""

    settings: dict[str, str]
    headers: str = ""


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--requests", default=3000, show_default=True, help="Of a round.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--connections", default=32, show_default=True)
def main(bundle: Path, requests: int, rounds: int, connections: int) -> None:
    """Writes results/guarded.json."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = guards(folder)
        servers: dict[str, Server] = {}
        for number, (name, guard) in enumerate(found.items()):
            settings = {"LATHE_MODELS": f"sentiment={bundle.absolute()}", **guard.settings}
            servers[name] = stack.enter_context(served("service.app:Lathe", folder / f"{number}.log", settings))
        measured: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(rounds + 1):  # the first warms up
            for name, server in servers.items():
                before = server.cpu_seconds()
                url = f"{server.url}/v1/classify"
                uvloop.run(closed_loop(url, BODIES, requests, connections, found[name].headers))
                if number:
                    measured[name].append((server.cpu_seconds() - before) / requests * 1e6)
    result = {
        "machine": asdict(this_machine()),
        "requests": requests,
        "rounds": rounds,
        "connections": connections,
        "cpu_us_per_request": {name: round(statistics.median(values), 1) for name, values in measured.items()},
        "ratio": {name: _ratio(values, measured[OPEN]) for name, values in measured.items() if name != OPEN},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps(result, indent=1))


def guards(folder: Path) -> dict[str, Guard]:
    """From none to all of them."""
    keys, limited = folder / "keys.json", folder / "limited.json"
    plain = f"authorization: Bearer {add_key(keys, 'shop')}\r\n"
    limits = Limits(requests_per_s=ENDLESS, tokens_per_min=ENDLESS, tokens_per_month=ENDLESS, concurrent=1000)
    held = f"authorization: Bearer {add_key(limited, 'shop', limits=limits)}\r\n"
    private = generate_private_key(65537, 2048)
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps({"keys": [RSAAlgorithm.to_jwk(private.public_key(), as_dict=True) | {"kid": "one"}]}))
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "exp": time.time() + 86_400, "scope": "predict"}
    token = jwt.encode(claims, private, "RS256", headers={"kid": "one"})
    audit = {"LATHE_AUDIT_FILE": str(folder / "audit.jsonl")}
    tokens = {"LATHE_JWT_ISSUER": ISSUER, "LATHE_JWT_AUDIENCE": AUDIENCE, "LATHE_JWT_JWKS": str(jwks)}
    return {
        OPEN: Guard({}),
        "keys": Guard({"LATHE_KEYS_FILE": str(keys)}, plain),
        "tokens": Guard(tokens, f"authorization: Bearer {token}\r\n"),
        "keys, limits": Guard({"LATHE_KEYS_FILE": str(limited)}, held),
        "keys, limits, audit log": Guard({"LATHE_KEYS_FILE": str(limited), **audit}, held),
    }


def _ratio(values: list[float], others: list[float]) -> dict[str, float]:
    ratios = [one / other for one, other in zip(values, others, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "low": round(min(ratios), 3), "high": round(max(ratios), 3)}


if __name__ == "__main__":
    main()
