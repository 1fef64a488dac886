"""The desk itself: tickets, conversations, people, files. In memory only; whoever calls it holds its lock."""

import collections
import datetime
import hashlib
import itertools
import threading

from bodies import text_of
from checks import check_size, moment
from faults import Faults
from limits import Limits
from webhooks import Webhooks

OPEN, RESOLVED, CLOSED = 2, 4, 5
# Where a ticket is, and a list looks, that names no workspace.
PRIMARY_WORKSPACE = 2
SUPPORT_EMAIL = "helpdesk@desk.example"

REPLY, NOTE = 0, 2

# Beyond 32 bits, as the ids of a large account are. Those of tickets are what people say, so they are small.
FIRST = {"ticket": 1, "requester": 27_000_000_001, "agent": 26_000_000_001, "conversation": 50_000_000_001,
         "attachment": 14_000_000_001}


def utc(time):
    return time.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _in_utc(values):
    return values | {field: utc(moment(values[field])) for field in ("due_by", "fr_due_by") if field in values}


class Desk:
    def __init__(self, key, seed, limit, minute):
        self.key, self.seed, self.limit, self.minute = key, seed, limit, minute
        self.lock, self.url, self.webhooks = threading.Lock(), None, Webhooks(seed)
        self.reset()

    def reset(self):
        """As new: also the numbers of tickets, the limits, and the drawn numbers begin again."""
        self.webhooks.reset()
        self.faults, self.limits = Faults(self.seed), Limits(self.limit, self.minute)
        self.calls, self.skew = collections.defaultdict(collections.Counter), 0
        self.statuses = {OPEN: "Open", 3: "Pending", RESOLVED: "Resolved", CLOSED: "Closed"}
        self.custom_fields = {"cf_virtualstack_ticket": "custom_text"}
        self.ids = {kind: itertools.count(first) for kind, first in FIRST.items()}
        self.tickets, self.stats, self.conversations = {}, {}, {}
        self.requesters, self.agents, self.files = {}, {}, {}
        # What is refused on purpose: words of notes, and tickets that nobody may read.
        self.refused_words, self.broken = [], set()
        # Whom the API key belongs to.
        self.api_agent = self.agent("API")

    # Times

    def time(self):
        """In whole seconds, so that several changes have the same time."""
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.skew)
        return now.replace(microsecond=0)

    def now(self, days=0):
        return utc(self.time() + datetime.timedelta(days=days))

    # People

    def agent(self, name):
        """The id of an agent, who is made where nobody has the name."""
        for number, agent in self.agents.items():
            if agent["name"] == name:
                return number
        number = next(self.ids["agent"])
        email = f"{'.'.join(name.lower().split())}@desk.example"
        self.agents[number] = {"id": number, "name": name, "email": email}
        return number

    def requester_of(self, email):
        return next((r for r in self.requesters.values() if r["primary_email"].lower() == email.lower()), None)

    def add_requester(self, values):
        number, now = next(self.ids["requester"]), self.now()
        self.requesters[number] = {
            "id": number, "is_agent": False, "first_name": None, "last_name": None, "job_title": None, "primary_email": None,
            "secondary_emails": [], "work_phone_number": None, "mobile_phone_number": None, "active": True,
        } | values | {"created_at": now, "updated_at": now}
        return self.requesters[number]

    def _requester(self, values):
        """Whom a ticket is for. An unknown address makes a requester."""
        if values.get("requester_id") is not None:
            return values["requester_id"]
        email = values["email"]
        found = self.requester_of(email) or self.add_requester({"first_name": email.partition("@")[0], "primary_email": email})
        return found["id"]

    # Files

    def _attach(self, uploads):
        """Keeps files; anybody who knows the URL may fetch them, as from the storage of Freshservice."""
        attached = []
        for upload in uploads:
            number, now = next(self.ids["attachment"]), self.now()
            token = hashlib.sha256(f"{self.seed} {number}".encode()).hexdigest()[:24]
            self.files[number] = (token, upload, hashlib.sha256(upload.content).hexdigest())
            attached.append({
                "id": number, "name": upload.name, "content_type": upload.content_type, "size": len(upload.content),
                "attachment_url": f"{self.url}/attachments/{number}/{token}", "created_at": now, "updated_at": now})
        return attached

    # Tickets

    def create(self, values):
        values = dict(values)
        uploads = values.pop("attachments", None) or []
        check_size(len(upload.content) for upload in uploads)
        requester = self._requester(values)
        number, now = next(self.ids["ticket"]), self.now()
        custom = dict.fromkeys(self.custom_fields) | (values.pop("custom_fields", None) or {})
        given = _in_utc({field: value for field, value in values.items() if field != "email" and value is not None})
        ticket = self.tickets[number] = {
            "id": number, "subject": None, "description": None, "description_text": None, "requester_id": None,
            "requested_for_id": requester, "responder_id": None, "group_id": None, "department_id": None,
            "workspace_id": PRIMARY_WORKSPACE, "status": OPEN, "priority": 1, "urgency": 1, "impact": 1, "source": 2,
            "type": "Incident", "category": None, "sub_category": None, "item_category": None, "tags": [], "cc_emails": [],
            "fwd_emails": [], "reply_cc_emails": [], "to_emails": None, "email_config_id": None, "due_by": self.now(3),
            "fr_due_by": self.now(1), "is_escalated": False, "fr_escalated": False, "spam": False, "deleted": False,
        } | given | {
            "requester_id": requester, "description_text": text_of(values["description"]), "custom_fields": custom,
            "attachments": self._attach(uploads), "created_at": now, "updated_at": now}
        self.conversations[number] = []
        self.stats[number] = dict.fromkeys(("first_responded_at", "agent_responded_at", "requester_responded_at", "resolved_at",
                                            "closed_at"))
        self._status_changed(ticket)
        self._tell(ticket, "ticket_created")
        return ticket

    def update(self, ticket, values, event="ticket_updated"):
        """Changes what is named; where nothing differs nothing has happened."""
        values = dict(values)
        uploads = values.pop("attachments", None) or []
        check_size([attachment["size"] for attachment in ticket["attachments"]] + [len(upload.content) for upload in uploads])
        if values.get("email") is not None or values.get("requester_id") is not None:
            values["requester_id"] = self._requester(values)
        values.pop("email", None)
        if "custom_fields" in values:
            values["custom_fields"] = ticket["custom_fields"] | (values["custom_fields"] or {})
        values = _in_utc(values)
        if "description" in values:
            values["description_text"] = text_of(values["description"])
        if not uploads and all(ticket[field] == value for field, value in values.items()):
            return
        status = ticket["status"]
        ticket |= values
        ticket["attachments"] = ticket["attachments"] + self._attach(uploads)
        if ticket["status"] != status:
            self._status_changed(ticket)
        self._touch(ticket, event)

    def delete(self, ticket):
        """Softly: it can be restored."""
        self.update(ticket, {"deleted": True}, "ticket_deleted")

    def restore(self, ticket):
        self.update(ticket, {"deleted": False}, "ticket_restored")

    def merge(self, ticket, into, agent, private):
        """Nothing but a note and the state tells where a merged ticket has gone."""
        self.converse(ticket, NOTE, {"body": f"<div>merged into #{into}</div>", "private": private, "user_id": agent})
        self.update(ticket, {"status": CLOSED}, "ticket_merged")

    def converse(self, ticket, source, values):
        """Adds a note, or a reply, of `user_id`."""
        uploads = values.get("attachments") or []
        check_size(len(upload.content) for upload in uploads)
        now, incoming, requester = self.now(), values.get("incoming") or False, self.requesters[ticket["requester_id"]]
        user = ticket["requester_id"] if incoming else values.get("user_id") or self.api_agent
        private = source == NOTE and values.get("private") is not False
        addresses = [SUPPORT_EMAIL] if incoming else [requester["primary_email"]]
        conversation = {
            "id": next(self.ids["conversation"]), "user_id": user, "body": values["body"], "body_text": text_of(values["body"]),
            "incoming": incoming, "private": private, "source": source, "ticket_id": ticket["id"],
            "support_email": SUPPORT_EMAIL if source == REPLY else None,
            "from_email": (requester["primary_email"] if incoming else SUPPORT_EMAIL) if source == REPLY else None,
            "to_emails": addresses if source == REPLY else values.get("notify_emails") or [],
            "cc_emails": values.get("cc_emails") or [], "bcc_emails": values.get("bcc_emails") or [],
            "attachments": self._attach(uploads), "created_at": now, "updated_at": now}
        self.conversations[ticket["id"]].append(conversation)
        self._responded(ticket, conversation)
        self._touch(ticket, "reply_added" if source == REPLY else "note_added")
        return conversation

    def _responded(self, ticket, conversation):
        stats, now = self.stats[ticket["id"]], conversation["created_at"]
        if conversation["incoming"]:
            stats["requester_responded_at"] = now
        elif not conversation["private"]:
            stats["agent_responded_at"] = now
            stats["first_responded_at"] = stats["first_responded_at"] or now

    def _status_changed(self, ticket):
        stats, now = self.stats[ticket["id"]], self.now()
        resolved = ticket["status"] in (RESOLVED, CLOSED)
        stats["status_updated_at"] = now
        stats["resolved_at"] = (stats["resolved_at"] or now) if resolved else None
        stats["closed_at"] = now if ticket["status"] == CLOSED else None

    def _touch(self, ticket, event):
        ticket["updated_at"] = self.now()
        self._tell(ticket, event)

    def _tell(self, ticket, event):
        self.webhooks.tell({"ticket_id": ticket["id"], "event": event, "updated_at": ticket["updated_at"]})

    # What a test looks at

    def seen(self):
        """Everything, as it is."""
        def with_digests(thing):
            return thing | {"attachments": [
                attachment | {"sha256": self.files[attachment["id"]][2]} for attachment in thing["attachments"]]}

        return {
            "now": self.now(),
            "tickets": [with_digests(ticket) | {"conversations": [with_digests(c) for c in self.conversations[number]]}
                        for number, ticket in self.tickets.items()],
            "requesters": list(self.requesters.values()), "agents": list(self.agents.values()),
            "statuses": self.statuses, "custom_fields": self.custom_fields, "calls": self.calls,
            "rate_limited": sum(counts["429"] for counts in self.calls.values()),
            "most_calls_in_a_minute": self.limits.most, "webhooks": self.webhooks.told(),
        }
