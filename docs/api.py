"""docs/api.md: each route with what it takes, one answer of the real service, and its errors, from the endpoints."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from docs.answers import ANSWERS, example, groups
from service.api.openapi import errors_of, openapi_document
from service.errors import ModelNotFound
from service.http.operation import Operation
from service.http.routing import OWN_ERRORS, Endpoint, Group

Schema = dict[str, Any]

_ADDRESS = "127.0.0.1:3000"
_INTRODUCTION = """\
What `GET /docs.json` says as OpenAPI 3.1, and `/docs` as a page to try it. The answers below are those of a service
with the two default bundles, shortened where it says so. Every answer has the header `X-Request-Id` (your own where you
send one), under which the service's log has what went wrong. [Errors](errors.md) have one shape:

```json
{own}
```

Routes of another server's protocol have that one's. A body may be compressed, as `Content-Encoding: gzip` or
`deflate` says; its bound is one on what it unpacks to.

## Sending a key

A service that listens on 127.0.0.1 needs none unless `LATHE_KEYS_FILE` is set; one that listens elsewhere does.
`lathe keys add shop --file keys.json` prints a new key, once. It goes into the header `Authorization`:

```sh
curl -s {address}/v1/classify -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\
  -d '{classify}'
```

```python
import os

import lathe

with lathe.Client("http://{address}", key=os.environ["KEY"]) as client:
    for answer in client.classify(["Thank you, that was quick!"], model="sentiment"):
        print(answer.label, answer.score)
```

Other clients: `huggingface_hub.InferenceClient(base_url="http://{address}", token=key)`, and for `tritonclient.http`
each call's `headers={{"Authorization": f"Bearer {{key}}"}}`.

A key may ask models and read `/metrics`, unless it was made for less or more (`--scope predict`, `metrics`, `admin`;
`--model` for some models only; `--expires`); what it was not made for is answered 403. `lathe keys rotate shop`
replaces one, and lets the old one in for another day. Texts of a key made with
`--priority batch`, for a nightly job, give way where others wait: one batch in five is theirs. Beside six such
jobs that send 64 texts at a time, a client's one text takes 12 ms (88 ms as keys of one priority, 4 ms alone), and the
jobs get 0.9 of the texts a second (`python -m benchmarks.serving.priorities bundles/sentiment`).

No key is needed for {public}.

### Tokens of an issuer

Tokens (JWT) of Keycloak, Entra ID, Auth0 and other OpenID Connect issuers take the place of keys, or are let in
beside them: what begins with `lathe_` is looked up in the keys file, all else must be a token.

```sh
export LATHE_JWT_ISSUER=https://login.example/realms/shop LATHE_JWT_AUDIENCE=lathe
export LATHE_JWT_JWKS=https://login.example/realms/shop/protocol/openid-connect/certs
```

A token needs `iss`, `aud`, `exp` and a name (`sub`, or what `LATHE_JWT_NAME_CLAIM` says), under which it is measured
and limited as a key is (`LATHE_JWT_LIMITS`), and in `scope` a word that means something here: `predict`, `metrics`,
`admin`, or those of `LATHE_JWT_SCOPES`. `LATHE_JWT_MODELS_CLAIM` names the claim that has the models that it may ask.
A token that is refused is answered 401 with `WWW-Authenticate: Bearer error="invalid_token"` and what is wrong with
it; one that may do nothing here, or not this, 403. A token with the name of a key in the keys file is refused: both
would be counted as one.

Algorithms are RS256, PS256, ES256 and EdDSA, as the issuer's keys say; a token is at most 8,192 characters long. The
issuer's keys are read every 5 minutes (a file: every second). A token that names a key that is not there is refused,
and has them read at once, but only once in 30 seconds: publish a key some minutes before you sign with it, as most
issuers do, and no token is refused. While the issuer cannot be asked, its last keys stay in force for an hour, then
no token is let in (`lathe_issuer_readable`, an ERROR line in the log); at start it must be there. It is asked over
TLS, without following redirects; `HTTPS_PROXY` and `SSL_CERT_FILE` say through what, and whose certificates are
trusted.

A token that has been signed is let in until it ends: there is no call to the issuer for each request. Give tokens
minutes, not days.
"""


def api_page() -> str:
    """The page."""
    return "\n".join(_Page(groups()).parts())


class _Page:
    def __init__(self, all_groups: Sequence[Group]) -> None:
        self._groups = all_groups
        self._document = openapi_document(all_groups)
        self._answers = json.loads(ANSWERS.read_text("utf-8"))
        self._endpoints = [(one, one.operation) for group in all_groups for one in group.endpoints if one.operation]
        self._first: dict[Any, Endpoint] = {}  # of each handler

    def parts(self) -> Iterator[str]:
        """The page in pieces."""
        yield "# HTTP API\n"
        yield _INTRODUCTION.format(
            own=_error_example(self._endpoints[0][0]),
            address=_ADDRESS,
            classify=next(json.dumps(example(one)) for _, one in self._endpoints if one.name == "classify"),
            public=", ".join(f"`{one.path}`" for one, _ in self._endpoints if one.public),
        )
        for group in self._groups:
            yield f"## {group.title}\n\n{group.about}"
            for endpoint in {one.errors: one for one in group.endpoints if one.errors is not OWN_ERRORS}.values():
                yield f"Its errors: `{_error_example(endpoint)}`."
            yield ""
            explained: list[Any] = []  # types of answers
            for endpoint in group.endpoints:
                if endpoint.operation is not None:
                    yield from self._route(endpoint, endpoint.operation, explained)

    def _route(self, endpoint: Endpoint, operation: Operation, explained: list[Any]) -> Iterator[str]:
        yield f"### {endpoint.method} {endpoint.path}\n"
        first = self._first.setdefault(endpoint.handler, endpoint) if endpoint.handler else endpoint
        if first is not endpoint:
            yield f"As {first.method} {first.path}.\n"
            return
        yield f"{operation.summary}\n"
        described = self._document["paths"][endpoint.path][endpoint.method.lower()]
        yield from self._request(operation, described)
        if operation.name in self._answers:
            yield f"```sh\n{_command(endpoint, operation)}\n```\n"
            yield from _answer(self._answers[operation.name])
        if operation.answer not in explained:
            explained.append(operation.answer)
            yield from self._meanings(described)
        codes: dict[int, list[str]] = {}
        for error in errors_of(endpoint):
            codes.setdefault(int(error.status), []).append(f"`{error.code}`")
        if codes:
            yield "Errors: " + "; ".join(f"{status} {', '.join(names)}" for status, names in codes.items()) + ".\n"

    def _request(self, operation: Operation, described: Schema) -> Iterator[str]:
        if operation.parameters:
            yield "| parameter | in | type | meaning |\n| --- | --- | --- | --- |"
            for one in operation.parameters:
                yield f"| `{one.name}` | {one.place} | {_type(dict(one.schema))} | {one.description} |"
            yield ""
        if operation.request is not None:
            yield "| field | type | default | meaning |\n| --- | --- | --- | --- |"
            for path, field, required in self._walk(described["requestBody"]["content"]["application/json"]["schema"]):
                default = "required" if required else _default(field.get("default"))
                yield f"| `{path}` | {_type(field)} | {default} | {field.get('description', '')} |"
            yield ""

    def _meanings(self, described: Schema) -> Iterator[str]:
        """What the fields of an answer mean, where their names do not say it."""
        schema = next(iter(described["responses"]["200"]["content"].values()))["schema"]
        rows = [(path, field["description"]) for path, field, _ in self._walk(schema) if "description" in field]
        if rows:
            yield "| field of the answer | meaning |\n| --- | --- |"
            yield from (f"| `{path}` | {meaning} |" for path, meaning in rows)
            yield ""

    def _walk(self, schema: Schema, path: str = "") -> Iterator[tuple[str, Schema, bool]]:
        """The fields of an object and of the objects in it: path, schema, whether it has to be there."""
        if "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        for name, field in schema.get("properties", {}).items():
            place = f"{path}.{name}" if path else name
            yield place, field, name in schema.get("required", ())
            yield from self._walk(field, place)
        for inner in schema.get("anyOf", ()):
            yield from self._walk(inner, path)
        if "items" in schema:
            yield from self._walk(schema["items"], f"{path}[]")


def _error_example(endpoint: Endpoint) -> str:
    error = ModelNotFound("no model named 'nobody'; there is banking-intents, sentiment")
    return json.dumps(endpoint.errors.body(error, "5f0c1e9a7d34b2681c90000000000007"))


def _command(endpoint: Endpoint, operation: Operation) -> str:
    path = endpoint.path.format(name="sentiment", model="sentiment", version="VERSION")
    body = example(operation)
    if body is None:
        return f"curl -s {'' if endpoint.method == 'GET' else '-X POST '}{_ADDRESS}{path}"
    return f"curl -s {_ADDRESS}{path} -H 'Content-Type: application/json' \\\n  -d '{json.dumps(body)}'"


def _answer(answer: Any) -> Iterator[str]:
    if isinstance(answer, str):
        yield f"```\n{answer}\n```\n" if answer.strip() else "200, and no text.\n"
    else:
        yield f"```json\n{json.dumps(answer, indent=2, ensure_ascii=False)}\n```\n"


def _default(value: object) -> str:
    return "" if value is None or isinstance(value, dict | list) else f"`{json.dumps(value)}`"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return "object"
    options = [_type(one) for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()))]
    if options:
        return " or ".join(one for one in dict.fromkeys(options) if one != "null")
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    least, most = schema.get("minimum"), schema.get("maximum")
    return f"{schema['type']}{'' if least is None else f', from {least}'}{'' if most is None else f' to {most}'}"
