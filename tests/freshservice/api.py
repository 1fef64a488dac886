"""How a call of the API goes: its faults, its limits, who calls, what it says. The calls themselves register by `route`."""

import base64
import binascii
import collections
import json
import re
import time
import urllib.parse

from bodies import form
from checks import Refusal, invalid

BASE = "/api/v2"

# kind: the sub-limit that a call counts towards, or FILE.
Route = collections.namedtuple("Route", "method pattern label kind parameters handler")
Request = collections.namedtuple("Request", "method path query headers body")
Reply = collections.namedtuple("Reply", "status body headers", defaults=(None, {}))

# Instead of a reply: the connection is cut before, or ends after.
RESET, LOST = "reset", "lost"

# What lies in a storage beside the API, open to who knows its URL: no key, no limits, but faults.
FILE = "file"

ROUTES = []
PAGING = ("page", "per_page")

BROKEN = {
    500: Reply(500, {"code": "internal_error", "message": "We're sorry, but something went wrong."}),
    502: Reply(502, b"<html><head><title>502 Bad Gateway</title></head></html>", {"Content-Type": "text/html"}),
    503: Reply(503, b"<html><head><title>503 Service Unavailable</title></head></html>", {"Content-Type": "text/html"}),
}


def route(method, path, kind=None, parameters=()):
    """Registers a handler, which takes the desk, the request, and what the path has in braces."""
    base = "" if kind == FILE else BASE
    pattern = re.compile(base + path.replace("{id}", r"(?P<id>\d{1,18})").replace("{token}", "(?P<token>[0-9a-f]+)"))

    def add(handler):
        ROUTES.append(Route(method, pattern, f"{method} {path}", kind, parameters, handler))
        return handler
    return add


def serve(desk, request):
    """A Reply, or how the connection ends without one."""
    found, parts, methods = _find(request)
    label, is_file = (found.label, found.kind == FILE) if found else ("unknown", False)
    with desk.lock:
        fate, limits = desk.faults.draw(), desk.limits
        allowed, headers = True, {}
        if not is_file:
            desk.limits.arrive()
        if fate.resets:
            desk.calls[label][RESET] += 1
            return RESET
        if not is_file:
            allowed, headers = desk.limits.take(found and found.kind, _cost(found, request))
    if fate.slow_seconds:
        time.sleep(fate.slow_seconds)
    with desk.lock:
        if desk.limits is not limits:
            # The desk was reset while the call was slow; it must not haunt the next test.
            return RESET
        if not allowed or fate.rate_limited and not is_file:
            reply = Reply(429, {"code": "rate_limited", "message": "You have exceeded the limit of requests per minute"},
                          {"Retry-After": desk.limits.retry_after()})
        else:
            reply = BROKEN[fate.error] if fate.error else _carry_out(desk, request, found, parts, methods)
        # While nothing changes what it shows.
        reply = encoded(reply)
        desk.calls[label][f"{reply.status} {LOST}" if fate.lost_replies else str(reply.status)] += 1
    return LOST if fate.lost_replies else reply._replace(headers=reply.headers | headers)


def encoded(reply):
    """With a body of bytes; JSON where it is not bytes yet."""
    if reply.body is None or isinstance(reply.body, bytes):
        return reply
    headers = {"Content-Type": "application/json; charset=utf-8"} | reply.headers
    return Reply(reply.status, json.dumps(reply.body).encode(), headers)


def _find(request):
    """The route and what its path has in braces, and which methods the path has."""
    methods, found, parts = [], None, []
    for candidate in ROUTES:
        if match := candidate.pattern.fullmatch(request.path):
            methods.append(candidate.method)
            if candidate.method == request.method:
                found, parts = candidate, [int(part) if name == "id" else part for name, part in match.groupdict().items()]
    return found, parts, methods


def included(request):
    """What else is asked for."""
    return [name for name in ",".join(request.query.get("include", [])).split(",") if name]


def _cost(found, request):
    """What is included costs, more so in a list."""
    each = {"list": 2, "view": 1}.get(found and found.kind, 0)
    return 1 + each * len(included(request))


def _carry_out(desk, request, found, parts, methods):
    try:
        if not found or found.kind != FILE:
            _authenticate(desk, request)
        if not methods:
            raise Refusal(404)
        if not found:
            message = f"{request.method} method is not allowed. It should be one of these method(s): {', '.join(methods)}"
            raise Refusal(405, {"code": "method_not_allowed", "message": message}, {"Allow": ", ".join(methods)})
        if unknown := [name for name in request.query if name not in found.parameters]:
            raise invalid(*((name, "Unexpected/invalid field in request", "invalid_field") for name in unknown))
        return found.handler(desk, request, *parts)
    except Refusal as refusal:
        return Reply(refusal.status, refusal.body, refusal.headers)


def _authenticate(desk, request):
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    try:
        user = base64.b64decode(text, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        user = None
    if scheme.lower() != "basic" or user != desk.key:
        raise Refusal(401, {"code": "invalid_credentials", "message": "You have to be logged in to perform this action."},
                      {"WWW-Authenticate": 'Basic realm="desk"'})


def values_of(request, takes_form=True):
    """The object that a body is, and whether it came as a form."""
    content_type = request.headers.get("Content-Type", "")
    bare = content_type.partition(";")[0].strip().lower()
    if bare == "multipart/form-data" and takes_form:
        values = form(content_type, request.body)
        if values is None:
            raise Refusal(400, {"code": "invalid_multipart", "message": "Request body has invalid multipart format"})
        return values, True
    if bare != "application/json":
        message = f"Content-Type header is set to {bare}. It should be set to application/json"
        raise Refusal(415, {"code": "invalid_content_type", "message": message})
    try:
        values = json.loads(request.body)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise Refusal(400, {"code": "invalid_json", "message": "Request body has invalid json format"})
    return values, False


def one(request, name, default, choices):
    """A parameter that has some values only."""
    value = request.query.get(name, [default])[-1]
    if value not in choices and value != default:
        raise invalid((name, f"It should be one of these values: '{','.join(choices)}'", "invalid_value"))
    return value


def number(request, name, default, most):
    """A parameter from 1 on."""
    text = request.query.get(name, [str(default)])[-1]
    if not re.fullmatch(r"\d{1,9}", text) or not 1 <= int(text) <= most:
        raise invalid((name, f"It should be a Positive Integer less than or equal to {most}", "invalid_value"))
    return int(text)


def page_of(desk, request, things):
    """The page that is asked for, and a header that leads to the next one."""
    page, size = number(request, "page", 1, 10**9), number(request, "per_page", 30, 100)
    headers = {}
    if len(things) > page * size:
        query = urllib.parse.urlencode(request.query | {"page": [page + 1], "per_page": [size]}, doseq=True)
        headers["Link"] = f'<{desk.url}{request.path}?{query}>; rel="next"'
    return things[(page - 1) * size:page * size], headers
