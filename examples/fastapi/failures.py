"""What an error of Personae becomes for a browser: one HTTP status, and a body that says what to mend.

A caller's mistake keeps its text. What only this backend can mend (its token, its address, a defect) does not leave it.
"""

import logging
import math

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import personae

STATUSES: dict[type[personae.PersonaeError], int] = {
    personae.InvalidRequest: 422,
    personae.TooLarge: 413,
    personae.NotFound: 404,
    personae.AlreadyExists: 409,
    personae.PreconditionFailed: 409,
    personae.Busy: 503,
    personae.Unavailable: 503,
    personae.DeadlineExceeded: 504,
}
"""Everything else is 502: the service behind this one answered what no caller of ours can help."""
RETRY_AFTER_S = 5.0
"""Where a server that is busy or away does not say how long to wait."""


def body(error: personae.PersonaeError) -> dict[str, object]:
    """The error as JSON: its kind, its stable reason, its text, and every field that is wrong."""
    if type(error) not in STATUSES:
        return {"error": "BadGateway", "reason": "", "message": "the picture service failed", "violations": []}
    violations = error.violations if isinstance(error, personae.InvalidRequest) else ()
    return {
        "error": type(error).__name__,
        "reason": error.reason,
        "message": str(error),
        "violations": [{"field": found.field, "description": found.description} for found in violations],
    }


async def answer(request: Request, error: Exception) -> JSONResponse:
    """The response to a request that failed before anything was sent."""
    assert isinstance(error, personae.PersonaeError)
    status = STATUSES.get(type(error), 502)
    headers = {}
    if isinstance(error, personae.Busy | personae.Unavailable):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s or RETRY_AFTER_S))
    if status == 502:
        logging.getLogger("uvicorn.error").error("%s %s: %r", request.method, request.url.path, error)
    return JSONResponse(body(error), status, headers)


def handle_failures(app: FastAPI) -> None:
    """Have every route of `app` answer so."""
    app.add_exception_handler(personae.PersonaeError, answer)
