"""Every route of this room, in one router for app/main.py."""

from fastapi import APIRouter

from cases import replay, routes_cases, routes_keeping, routes_live, routes_public

router = APIRouter()
for part in (routes_live, routes_cases, routes_keeping, routes_public, replay):
    router.include_router(part.router)
