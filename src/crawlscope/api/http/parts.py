"""The parts of the running service, as routes ask for them."""

from typing import Annotated, cast

from fastapi import Depends, Request

from crawlscope.processes.parts import Parts


def of_request(request: Request) -> Parts:
    return cast(Parts, request.app.state.parts)


ServiceParts = Annotated[Parts, Depends(of_request)]
