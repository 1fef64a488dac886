"""The calls about tickets."""

import datetime
import re

import checks
from api import PAGING, Reply, included, one, page_of, route, values_of
from checks import Refusal, check, invalid
from state import PRIMARY_WORKSPACE

INCLUDES = ("conversations", "requester", "stats", "tags")
# A ticket shows no more of them, of however many it has.
INCLUDED_CONVERSATIONS = 10
# What a list leaves out of a ticket; tags come by include.
NOT_LISTED = ("attachments", "tags")
RECENT = datetime.timedelta(days=30)
ORDERS = ("created_at", "updated_at", "due_by", "status", "priority")
# What an update may take away. Elsewhere null leaves what there is.
NULLABLE = ("responder_id", "group_id", "department_id", "category", "sub_category", "item_category")


def ticket_of(desk, number, deleted=None):
    """A ticket. What changes one says whether a deleted one will do."""
    ticket = desk.tickets.get(number)
    if ticket is None or deleted not in (None, ticket["deleted"]):
        raise Refusal(404)
    return ticket


@route("POST", "/tickets", "create")
def create(desk, request):
    values, from_form = values_of(request)
    check(values, checks.ticket_kinds(desk), checks.MANDATORY, custom=desk.custom_fields, from_form=from_form)
    if values.get("email") is None and values.get("requester_id") is None:
        raise invalid(("requester_id", "One of the following fields must be present: requester_id, email", "missing_field"))
    return Reply(201, {"ticket": desk.create(values)})


@route("GET", "/tickets/{id}", "view", ("include", "workspace_id"))
def view(desk, request, number):
    if number in desk.broken:
        raise Refusal(403, {"code": "access_denied", "message": "You are not authorized to perform this action."})
    return Reply(200, {"ticket": _with(desk, ticket_of(desk, number), _includes(request))})


@route("PUT", "/tickets/{id}", "update")
def update(desk, request, number):
    ticket = ticket_of(desk, number, deleted=False)
    values, from_form = values_of(request)
    check(values, checks.ticket_kinds(desk), checks.MANDATORY, partial=True, custom=desk.custom_fields, from_form=from_form)
    desk.update(ticket, {field: value for field, value in values.items() if value is not None or field in NULLABLE})
    return Reply(200, {"ticket": ticket})


@route("DELETE", "/tickets/{id}")
def delete(desk, _request, number):
    desk.delete(ticket_of(desk, number, deleted=False))
    return Reply(204)


@route("PUT", "/tickets/{id}/restore")
def restore(desk, _request, number):
    desk.restore(ticket_of(desk, number, deleted=True))
    return Reply(204)


@route("GET", "/tickets", "list", PAGING + (
    "updated_since", "order_by", "order_type", "filter", "include", "workspace_id", "requester_id", "email"))
def view_all(desk, request):
    include, tests = _includes(request), _tests(desk, request)
    order, direction = one(request, "order_by", "created_at", ORDERS), one(request, "order_type", "desc", ("asc", "desc"))
    chosen = [ticket for ticket in desk.tickets.values() if all(test(ticket) for test in tests)]
    chosen.sort(key=lambda ticket: (ticket[order], ticket["id"]), reverse=direction == "desc")
    page, headers = page_of(desk, request, chosen)
    return Reply(200, {"tickets": [_listed(_with(desk, ticket, include), include) for ticket in page]}, headers)


@route("GET", "/tickets/filter", "list", PAGING + ("query", "workspace_id"))
def find(desk, request):
    terms = _terms(desk, request.query.get("query", [""])[-1])
    chosen = [ticket for ticket in desk.tickets.values() if not ticket["deleted"] and not ticket["spam"]
              and _in_workspace(request, ticket) and all(_holds(ticket, name, value) for name, value in terms)]
    chosen.sort(key=lambda ticket: (ticket["created_at"], ticket["id"]), reverse=True)
    page, headers = page_of(desk, request, chosen)
    return Reply(200, {"tickets": [_listed(ticket) for ticket in page], "total": len(chosen)}, headers)


def _includes(request):
    include = included(request)
    if any(name not in INCLUDES for name in include):
        raise invalid(("include", f"It should be one of these values: '{','.join(INCLUDES)}'", "invalid_value"))
    return include


def _with(desk, ticket, include):
    """A ticket with what else is asked for."""
    shown, requester = dict(ticket), desk.requesters[ticket["requester_id"]]
    if "conversations" in include:
        shown["conversations"] = desk.conversations[ticket["id"]][:INCLUDED_CONVERSATIONS]
    if "requester" in include:
        name = " ".join(filter(None, (requester["first_name"], requester["last_name"])))
        shown["requester"] = {"id": requester["id"], "name": name, "email": requester["primary_email"],
                              "mobile": requester["mobile_phone_number"], "phone": requester["work_phone_number"]}
    if "stats" in include:
        shown["stats"] = desk.stats[ticket["id"]] | {
            "ticket_id": ticket["id"], "created_at": ticket["created_at"], "updated_at": ticket["updated_at"]}
    return shown


def _listed(ticket, include=()):
    return {field: value for field, value in ticket.items() if field not in NOT_LISTED or field in include}


def _in_workspace(request, ticket):
    return request.query.get("workspace_id", [str(PRIMARY_WORKSPACE)])[-1] in ("0", str(ticket["workspace_id"]))


def _tests(desk, request):
    """What a ticket has to be for a list."""
    chosen = one(request, "filter", "all", ("deleted", "spam"))
    tests = [lambda ticket: ticket["deleted"] == (chosen == "deleted"), lambda ticket: ticket["spam"] == (chosen == "spam"),
             lambda ticket: _in_workspace(request, ticket)]
    if "updated_since" in request.query:
        since = checks.moment(request.query["updated_since"][-1])
        if since is None:
            raise invalid(("updated_since", "It should be a valid time of ISO 8601", "invalid_value"))
        tests.append(lambda ticket: checks.moment(ticket["updated_at"]) >= since)
    else:
        tests.append(lambda ticket: checks.moment(ticket["created_at"]) > desk.time() - RECENT)
    if "requester_id" in request.query:
        tests.append(lambda ticket: str(ticket["requester_id"]) == request.query["requester_id"][-1])
    if "email" in request.query:
        requester = desk.requester_of(request.query["email"][-1])
        tests.append(lambda ticket: requester is not None and ticket["requester_id"] == requester["id"])
    return tests


TERM = re.compile(r"\s*(\w+)\s*:\s*(?:'([^']*)'|(\d+))\s*(AND\s|\Z)")


def _terms(desk, query):
    """What a query such as "tag:'a' AND status:2" asks for. It stands in double quotes."""
    def wrong(message, code="invalid_value"):
        return invalid(("query", message, code))

    if len(query) < 2 or query[0] != '"' or query[-1] != '"':
        raise wrong("It should be a query in double quotes")
    at, query, terms = 0, query[1:-1], []
    while not terms or joined:
        match = TERM.match(query, at)
        if not match:
            raise wrong(f"It should be terms such as tag:'a' joined by AND, but from {at} on it is {query[at:]!r}")
        name, text, number, joined = match.groups()
        if name in ("status", "priority") and number:
            terms.append((name, int(number)))
        elif text is not None and (name == "tag" or name in desk.custom_fields):
            terms.append((name, text))
        else:
            raise wrong(f"{name} is no field with such a value", "invalid_field")
        at = match.end()
    return terms


def _holds(ticket, name, value):
    if name == "tag":
        return value in ticket["tags"]
    return (ticket if name in ticket else ticket["custom_fields"]).get(name) == value
