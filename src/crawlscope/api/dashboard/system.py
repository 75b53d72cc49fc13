"""The installation: the health of each part, the queue, the workers, sizes, errors and settings."""

from fastapi import Request
from fastapi.responses import Response
from pydantic import SecretStr

from crawlscope.api.dashboard.rendering import page_router, render
from crawlscope.api.http.health import health
from crawlscope.api.http.metrics import show_stats
from crawlscope.api.http.parameters import ServiceParts
from crawlscope.core.settings import ENV_PREFIX, Settings, without_credentials

NOT_SET = "–"
HIDDEN = "set, not shown"

router = page_router()


@router.get("/system")
async def show_system(request: Request, parts: ServiceParts) -> Response:
    return render(
        request,
        "system.html",
        health=await health(parts),
        activity=await parts.inspection.activity(),
        stats=await show_stats(parts),
        summary=await parts.insights.summary(24),
        settings=shown_settings(parts.settings),
    )


def shown_settings(settings: Settings) -> list[tuple[str, str, bool]]:
    """Name, value without secrets, and whether it differs from the default."""
    shown = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = HIDDEN
        elif value is None:
            text = NOT_SET
        else:
            text = without_credentials(value) if name.endswith("_url") else str(value)
        is_own = name in settings.model_fields_set and value != field.default
        shown.append((f"{ENV_PREFIX}{name}".upper(), text, is_own))
    return shown
