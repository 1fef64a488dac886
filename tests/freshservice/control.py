"""What tests do to the desk, and see of it: faults, the clock, what agents do, webhooks, the state. No key, no limits."""

import base64
import binascii
import json
import re

from api import Reply, encoded
from bodies import Upload
from checks import CUSTOM, Refusal
from state import NOTE, REPLY

TICKET = re.compile(r"/control/tickets/(\d+)/(\w+)")


def serve(desk, request):
    try:
        with desk.lock:
            return encoded(Reply(200, _carry_out(desk, request)))
    except Refusal as refusal:
        return encoded(Reply(refusal.status, refusal.body))


def _carry_out(desk, request):
    if (request.method, request.path) == ("GET", "/control/state"):
        return desk.seen()
    if request.method != "POST":
        raise Refusal(405)
    try:
        given = json.loads(request.body or b"{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise _wrong("the body has to be an object of JSON")
    if match := TICKET.fullmatch(request.path):
        return _act(desk, int(match[1]), match[2], given)
    setting = SETTINGS.get(request.path.removeprefix("/control/"))
    if setting is None:
        raise Refusal(404)
    setting(desk, given)
    return given


def _wrong(message):
    return Refusal(400, {"error": message})


def _need(given, **kinds):
    """Refuses what is not named, so that no test passes by a slip of the pen."""
    for name, value in given.items():
        if name not in kinds:
            raise _wrong(f"{name} is not one of: {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or isinstance(value, bool) and kinds[name] is not bool:
            raise _wrong(f"{name} has the wrong type: {value!r}")
    return given


NUMBER = (int, float)


def _faults(desk, given):
    _need(given, lost_replies=NUMBER, errors=NUMBER, slow=dict, resets=NUMBER, rate_limited=NUMBER)
    if "slow" in given and set(_need(given["slow"], p=NUMBER, seconds=NUMBER)) != {"p", "seconds"}:
        raise _wrong("slow takes p and seconds")
    desk.faults.set(given)


def _clock(desk, given):
    desk.skew = _need(given, skew_seconds=NUMBER).get("skew_seconds", 0)


def _statuses(desk, given):
    if not all(re.fullmatch(r"\d{1,9}", number) and isinstance(label, str) for number, label in given.items()):
        raise _wrong("statuses are labels by number")
    desk.statuses |= {int(number): label for number, label in given.items()}


def _fields(desk, given):
    if not all(kind in CUSTOM for kind in given.values()):
        raise _wrong(f"a field is one of: {', '.join(CUSTOM)}")
    desk.custom_fields = given


def _webhook(desk, given):
    _need(given, url=str, secret_header=str, secret=str, twice=NUMBER, reorder=NUMBER)
    desk.webhooks.set(given if given.get("url") else None)


def _refusals(desk, given):
    """The words that no note may have in it."""
    desk.refused_words = _need(given, words=list).get("words", [])


def _reset(desk, given):
    _need(given)
    desk.reset()


SETTINGS = {"faults": _faults, "clock": _clock, "statuses": _statuses, "fields": _fields, "webhook": _webhook,
            "refusals": _refusals, "reset": _reset}


def _act(desk, number, action, given):
    """What an agent does. `agent` is who; `incoming` has the requester say it."""
    if number not in desk.tickets or action not in ACTIONS:
        raise Refusal(404)
    ticket, agent = desk.tickets[number], _agent(desk, given)
    done = ACTIONS[action](desk, ticket, agent, given)
    return {"conversation": done} if action in ("reply", "note") else {"ticket": ticket}


def _agent(desk, given):
    name = given.pop("agent", "Agent")
    if not isinstance(name, str):
        raise _wrong("agent has to be a name")
    return desk.agent(name)


def _say(source):
    def act(desk, ticket, agent, given):
        _need(given, body=str, private=bool, incoming=bool, attachments=list)
        if "body" not in given:
            raise _wrong("body is missing")
        given["attachments"] = [_upload(attachment) for attachment in given.get("attachments", [])]
        return desk.converse(ticket, source, given | {"user_id": agent})
    return act


def _upload(given):
    """A file as JSON has it: name, content_type, content in base64."""
    try:
        content_type = given.get("content_type", "application/octet-stream")
        return Upload(given["name"], content_type, base64.b64decode(given["content"], validate=True))
    except (AttributeError, KeyError, TypeError, binascii.Error) as error:
        raise _wrong(f"an attachment has a name and a content in base64: {error!r}") from None


def _status(desk, ticket, _agent_id, given):
    if _need(given, status=int).get("status") not in desk.statuses:
        raise _wrong(f"status has to be one of {list(desk.statuses)}")
    desk.update(ticket, given)


def _priority(desk, ticket, _agent_id, given):
    if _need(given, priority=int).get("priority") not in (1, 2, 3, 4):
        raise _wrong("priority has to be one of [1, 2, 3, 4]")
    desk.update(ticket, given)


def _assign(desk, ticket, _agent_id, given):
    name = _need(given, responder=(str, type(None))).get("responder")
    desk.update(ticket, {"responder_id": desk.agent(name) if name else None})


def _delete(desk, ticket, _agent_id, given):
    _need(given)
    desk.delete(ticket)


def _restore(desk, ticket, _agent_id, given):
    _need(given)
    desk.restore(ticket)


def _break(desk, ticket, _agent_id, given):
    """Nobody may read it, or everybody again."""
    broken = _need(given, broken=bool).get("broken", True)
    (desk.broken.add if broken else desk.broken.discard)(ticket["id"])


def _merge(desk, ticket, agent, given):
    into = _need(given, into=int, private=bool).get("into")
    if into not in desk.tickets or into == ticket["id"]:
        raise _wrong("into has to be another ticket")
    desk.merge(ticket, into, agent, given.get("private", True))


ACTIONS = {"reply": _say(REPLY), "note": _say(NOTE), "status": _status, "priority": _priority, "assign": _assign,
           "delete": _delete, "restore": _restore, "merge": _merge, "break": _break}
