"""Every route of the service: the gate finds its handlers in these groups, and the documents say what is in them."""

from service.access.limits import Limiter
from service.access.local import Access
from service.api import admin, documentation, mask, monitoring, native, open_inference, text_embeddings_inference, usage
from service.http.routing import Group, Routes
from service.models.registry import Serving


def all_groups(serving: Serving, access: Access, limiter: Limiter) -> list[Group]:
    """The routes, in the order of the documents."""
    groups = [
        native.routes(serving),
        mask.routes(serving.settings),
        usage.routes(limiter),
        admin.routes(serving, access),
        monitoring.routes(serving),
        text_embeddings_inference.routes(serving),
        open_inference.routes(serving),
    ]
    return [*groups, documentation.routes(groups)]


def create_routes(serving: Serving, access: Access, limiter: Limiter) -> Routes:
    """The table of all endpoints."""
    groups = all_groups(serving, access, limiter)
    below = {group.below: group.endpoints[0].errors for group in groups if group.below is not None}
    return Routes((endpoint for group in groups for endpoint in group.endpoints), below)
