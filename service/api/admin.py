"""The routes that change which version of a model is served, and how a model is described.

POST /v1/models/NAME/load      {"bundle": PATH, "canary": PERCENT or "shadow": true, "other_labels": true}
POST /v1/models/NAME/promote   the version on trial becomes the live one
POST /v1/models/NAME/drop      the trial ends
POST /v1/models/NAME/rollback  back to the version before

They need a key that was made for it; where there are no keys, the service listens on this machine alone, and they take
calls from programs on it alone.
"""

from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from compression.bundle import SeveralLabels, Task
from service.access.local import Access, LocalOnly
from service.api.operations import path_parameter
from service.api.schemas import LoadRequest, ModelDescription, Trial
from service.errors import BundleRefused, Conflict, ModelNotFound, NotReady
from service.http.body import parse, read_body
from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint, Group, Handler
from service.models.model import Model
from service.models.registry import Serving
from service.models.rollout import Rollout

RolloutCall = Callable[[Rollout, str], Awaitable[Model]]


class Admin:
    """The handlers."""

    def __init__(self, serving: Serving, access: Access) -> None:
        self._settings = serving.settings
        self._rollout = Rollout(serving)
        self._access = access

    async def load(self, request: Request) -> Response:
        """POST /v1/models/{name}/load."""
        rollout = self._admit(request)
        body = parse(LoadRequest, await read_body(request, self._settings), self._settings.max_inputs)
        request.bundle = body.bundle
        model = await rollout.load(
            request.parameters["name"],
            body.bundle,
            on_trial=body.on_trial,
            percent=body.canary,
            other_labels=body.other_labels,
        )
        return _answer(model)

    def calling(self, change: RolloutCall) -> Handler:
        """A handler of a call that needs no body."""

        async def handle(request: Request) -> Response:
            return _answer(await change(self._admit(request), request.parameters["name"]))

        return handle

    def _admit(self, request: Request) -> Rollout:
        """What changes versions, for a caller who may.

        Raises:
            Forbidden: for one who may not.
        """
        request.caller.require_model(request.parameters["name"])
        if isinstance(self._access, LocalOnly):
            self._access.require_program(request.client, request.headers)
        return self._rollout


def routes(serving: Serving, access: Access) -> Group:
    """The routes that change versions."""
    admin = Admin(serving, access)

    def endpoint(name: str, summary: str, handler: Handler, request: type[BaseModel] | None = None) -> Endpoint:
        operation = Operation(
            name,
            summary,
            ModelDescription,
            description="The model as it is now.",
            request=request,
            parameters=(path_parameter("name"),),
            errors=(ModelNotFound, Conflict, NotReady, *((BundleRefused,) if request else ())),
        )
        return Endpoint("POST", f"/v1/models/{{name}}/{name}", handler, operation, scope="admin")

    return Group(
        "Versions",
        "[New versions without a restart](versions.md). They need a key made with `lathe keys add NAME --scope admin`. "
        "Without keys they are taken from programs on the service's own machine only, not from a page in a browser.",
        [
            endpoint("load", "Load a version, and make it the live one or put it on trial.", admin.load, LoadRequest),
            endpoint("promote", "Make the version on trial the live one.", admin.calling(Rollout.promote)),
            endpoint("rollback", "Return to the previous version.", admin.calling(Rollout.roll_back)),
            endpoint("drop", "End the trial.", admin.calling(Rollout.drop)),
        ],
    )


def describe(model: Model) -> ModelDescription:
    """What clients are told of a model."""
    live, candidate, previous = model.live, model.candidate, model.previous
    manifests = [member.bundle.manifest for member in live.members]
    figures = manifests[0].figures.model_dump(mode="json", exclude={"classes"}) if len(manifests) == 1 else {}
    return ModelDescription(
        name=model.name,
        version=live.id,
        degraded=live.missing > 0,
        task=live.task.name,
        inputs=model.inputs,
        labels=list(live.labels),
        thresholds=_thresholds(live.task),
        abstain_below=live.abstain_below,
        max_length=min(member.engine.most_tokens for member in live.members),
        batch_exact=all(manifest.runtime.batch_exact for manifest in manifests),
        figures=figures,
        trial=None if candidate is None else Trial(version=candidate.version.id, canary=candidate.percent),
        previous=None if previous is None else previous.id,
    )


def _thresholds(task: Task) -> dict[str, float] | None:
    return dict(zip(task.labels, task.thresholds, strict=True)) if isinstance(task, SeveralLabels) else None


def _answer(model: Model) -> Response:
    return Response.json(describe(model).model_dump())
