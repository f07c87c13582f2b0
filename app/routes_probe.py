"""What a supervisor asks of any process, whatever its roles: are you alive, can you take work?"""

from fastapi import APIRouter, Request, Response

from app.health import is_ready

router = APIRouter(tags=["probe"])


@router.get("/livez", include_in_schema=False)
async def livez() -> dict[str, str]:
    """The process answers. Asks nothing of the database, so that its trouble restarts nobody."""
    return {"status": "alive"}


@router.get("/readyz", include_in_schema=False)
async def readyz(request: Request, response: Response) -> dict[str, bool]:
    ready = await is_ready(request.app.state.services)
    if not all(ready.values()):
        response.status_code = 503
    return ready
