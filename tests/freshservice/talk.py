"""The calls about what is said on tickets, by whom, with which files, and about the form that tickets have."""

import checks
from api import FILE, PAGING, Reply, page_of, route, values_of
from checks import Refusal, check, invalid
from state import NOTE, REPLY, SUPPORT_EMAIL
from tickets import ticket_of


@route("POST", "/tickets/{id}/notes")
def note(desk, request, number):
    return _add(desk, request, number, NOTE, {
        "private": checks.BOOLEAN, "incoming": checks.BOOLEAN, "notify_emails": checks.EMAILS})


@route("POST", "/tickets/{id}/reply")
def reply(desk, request, number):
    # Any other address than one that an admin has set up is refused.
    return _add(desk, request, number, REPLY, {
        "from_email": checks.one_of((SUPPORT_EMAIL,)), "cc_emails": checks.EMAILS, "bcc_emails": checks.EMAILS})


def _add(desk, request, number, source, kinds):
    ticket = ticket_of(desk, number, deleted=False)
    values, from_form = values_of(request)
    kinds |= {"body": checks.text(), "attachments": checks.ATTACHMENTS,
              "user_id": checks.known(desk.agents | desk.requesters, "user")}
    check(values, kinds, ("body",), from_form=from_form)
    if any(word in values["body"] for word in desk.refused_words):
        raise invalid(("body", "It has a word that is refused", "invalid_value"))
    return Reply(201, {"conversation": desk.converse(ticket, source, values)})


@route("GET", "/tickets/{id}/conversations", parameters=PAGING)
def view_all(desk, request, number):
    page, headers = page_of(desk, request, desk.conversations[ticket_of(desk, number)["id"]])
    return Reply(200, {"conversations": page}, headers)


@route("GET", "/attachments/{id}/{token}", FILE)
def file(desk, _request, number, token):
    if number not in desk.files or desk.files[number][0] != token:
        raise Refusal(404)
    upload = desk.files[number][1]
    return Reply(200, upload.content, {"Content-Type": upload.content_type, "Content-Disposition": "attachment"})


@route("GET", "/requesters", parameters=PAGING + ("email",))
def view_requesters(desk, request):
    email = request.query.get("email", [None])[-1]
    chosen = [r for r in desk.requesters.values() if email is None or r["primary_email"].lower() == email.lower()]
    page, headers = page_of(desk, request, chosen)
    return Reply(200, {"requesters": page}, headers)


@route("POST", "/requesters")
def create_requester(desk, request):
    values, _ = values_of(request, takes_form=False)
    kinds = {"primary_email": checks.EMAIL} | dict.fromkeys(
        ("first_name", "last_name", "job_title", "work_phone_number", "mobile_phone_number"), checks.text(255))
    check(values, kinds, ("first_name", "primary_email"))
    if desk.requester_of(values["primary_email"]):
        raise invalid(("primary_email", "It should be a unique value", "duplicate_value"), status=409)
    return Reply(201, {"requester": desk.add_requester(values)})


# What a form has that somebody may want to check: name, label, type, whether a ticket needs it.
FIELDS = (
    ("requester", "Requester", "default_requester", True), ("subject", "Subject", "default_subject", True),
    ("source", "Source", "default_source", False), ("status", "Status", "default_status", True),
    ("priority", "Priority", "default_priority", True), ("group", "Group", "default_group", False),
    ("agent", "Agent", "default_agent", False), ("description", "Description", "default_description", True),
)
PRIORITIES = {1: "Low", 2: "Medium", 3: "High", 4: "Urgent"}


@route("GET", "/ticket_form_fields", parameters=("workspace_id",))
def form_fields(desk, _request):
    choices = {"status": desk.statuses, "priority": PRIORITIES}
    fields = [_field(number, name, label, kind, required, choices.get(name, {}))
              for number, (name, label, kind, required) in enumerate(FIELDS, 1)]
    for number, (name, kind) in enumerate(desk.custom_fields.items(), len(FIELDS) + 1):
        fields.append(_field(number, name, name.removeprefix("cf_").replace("_", " ").capitalize(), kind, False, {}))
    return Reply(200, {"ticket_fields": fields})


def _field(number, name, label, kind, required, choices):
    return {"id": 28_000_000_000 + number, "name": name, "label": label, "field_type": kind, "required": required,
            "default_field": not kind.startswith("custom_"), "position": number,
            "choices": [{"id": value, "value": text} for value, text in choices.items()]}
