"""What a request may hold, and the errors that name what is wrong with it."""

import collections
import datetime
import re

from bodies import Upload

LARGEST_ATTACHMENTS = 15 << 20
MANDATORY = ("subject", "description", "status", "priority", "source")
SOURCES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 18)
TYPES = ("Incident", "Service Request")

NAMES = {bool: "Boolean", int: "Integer", float: "Float", str: "String", list: "Array", dict: "key/value pair",
         type(None): "Null", Upload: "File"}


class Refusal(Exception):
    """The reply to a request that is not carried out."""

    def __init__(self, status, body=None, headers=None):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


def invalid(*errors, status=400):
    """Errors are (field, message, code)."""
    listed = [dict(zip(("field", "message", "code"), error)) for error in errors]
    return Refusal(status, {"description": "Validation failed", "errors": listed})


class Kind(collections.namedtuple("Kind", "type right expected", defaults=(lambda value: True, ""))):
    """A type of the API, and which of its values are right."""

    def read(self, text):
        """A value out of a form, where everything is text."""
        if self.type is int and re.fullmatch(r"-?\d{1,18}", text):
            return int(text)
        if self.type is bool and text in ("true", "false"):
            return text == "true"
        return text

    def wrong(self, value):
        """The message and the code, or none."""
        if type(value) is not self.type:
            return f"Value set is of type {NAMES[type(value)]}.It should be a/an {NAMES[self.type]}", "datatype_mismatch"
        if not self.right(value):
            return self.expected, "invalid_value"
        return None


def text(longest=None):
    return Kind(str, lambda value: longest is None or len(value) <= longest, f"It can have a maximum of {longest} characters")


def one_of(values):
    """`values` may change later."""
    listed = ",".join(str(value) for value in values)
    return Kind(type(next(iter(values))), lambda value: value in values, f"It should be one of these values: '{listed}'")


def known(things, what):
    return Kind(int, lambda value: value in things, f"There is no {what} matching the given id")


POSITIVE = Kind(int, lambda value: value > 0, "It should be a Positive Integer")
BOOLEAN = Kind(bool)
EMAIL = Kind(str, lambda value: re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value),
             "It should be in the 'valid email address' format")
EMAILS = Kind(list, lambda value: all(type(v) is str and EMAIL.right(v) for v in value),
              "It should contain valid email addresses only")
TEXTS = Kind(list, lambda value: all(type(v) is str for v in value), "It should contain elements of type String only")
ATTACHMENTS = Kind(list, lambda value: all(type(v) is Upload for v in value),
                   "It should contain elements of type valid file format only")


def moment(value):
    """A time in ISO 8601, or none. UTC where it does not say."""
    try:
        time = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)


def ticket_kinds(desk):
    future = Kind(str, lambda value: (moment(value) or desk.time()) > desk.time(),
                  "It should be a time of ISO 8601 in the future")
    return {
        "subject": text(255), "description": text(), "email": EMAIL, "requester_id": known(desk.requesters, "user"),
        "status": one_of(desk.statuses), "priority": one_of((1, 2, 3, 4)), "source": one_of(SOURCES), "type": one_of(TYPES),
        "urgency": one_of((1, 2, 3)), "impact": one_of((1, 2, 3)), "group_id": POSITIVE, "department_id": POSITIVE,
        "workspace_id": POSITIVE, "responder_id": known(desk.agents, "agent"), "category": text(), "sub_category": text(),
        "item_category": text(), "tags": TEXTS, "cc_emails": EMAILS, "custom_fields": Kind(dict), "due_by": future,
        "fr_due_by": future, "attachments": ATTACHMENTS,
    }


CUSTOM = {"custom_text": text(255), "custom_paragraph": text(), "custom_number": Kind(int), "custom_checkbox": BOOLEAN}


def _errors(values, kinds, mandatory, from_form):
    """The errors of an object; what a form says is read in place."""
    for field, value in values.items():
        if field not in kinds:
            yield field, "Unexpected/invalid field in request", "invalid_field"
            continue
        if from_form and type(value) is str:
            value = values[field] = kinds[field].read(value)
        if value is None and field not in mandatory:
            continue
        if wrong := kinds[field].wrong(value):
            yield field, *wrong
        elif value == "" and field in mandatory:
            yield field, "It should not be blank as this is a mandatory field", "invalid_value"


def check(values, kinds, mandatory=(), partial=False, custom=None, from_form=False):
    """Refuses an object with every error that it has."""
    errors = []
    if not partial:
        errors += [(f, f"It should be a/an {NAMES[kinds[f].type]}", "missing_field") for f in mandatory if f not in values]
    errors += _errors(values, kinds, mandatory, from_form)
    if isinstance(values.get("custom_fields"), dict):
        errors += _errors(values["custom_fields"], {name: CUSTOM[kind] for name, kind in (custom or {}).items()}, (), from_form)
    if errors:
        raise invalid(*errors)


def check_size(sizes):
    """Refuses attachments of one ticket or conversation that are too large together."""
    if sum(sizes) > LARGEST_ATTACHMENTS:
        found, most = f"{sum(sizes) / (1 << 20):.1f} MB", f"{LARGEST_ATTACHMENTS >> 20} MB"
        raise invalid(("attachments", f"The attachments have {found} together, it can be a maximum of {most}", "invalid_value"))
