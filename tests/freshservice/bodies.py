"""What bodies hold: forms with files, and the text of HTML."""

import collections
import email
import html.parser
import re

Upload = collections.namedtuple("Upload", "name content_type content")

# Where the text of an element ends its line.
BLOCKS = {"blockquote", "br", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "table", "tr", "ul"}
UNSEEN = {"head", "script", "style", "title"}


class _Text(html.parser.HTMLParser):
    """Collects what a reader would see."""

    def __init__(self):
        super().__init__()
        self.seen, self.unseen = [], 0

    def handle_starttag(self, tag, attributes):
        self.unseen += tag in UNSEEN
        if tag in BLOCKS:
            self.seen.append("\n")

    def handle_endtag(self, tag):
        self.unseen -= tag in UNSEEN and self.unseen > 0
        if tag in BLOCKS:
            self.seen.append("\n")

    def handle_data(self, data):
        if not self.unseen:
            self.seen.append(re.sub(r"\s+", " ", data))


def text_of(markup):
    """The text of HTML, one line for each block."""
    parser = _Text()
    parser.feed(markup)
    parser.close()
    lines = (line.strip() for line in "".join(parser.seen).split("\n"))
    return "\n".join(line for line in lines if line)


def form(content_type, body):
    """The fields of a multipart form: `a[]` is a list, `a[b]` an entry of an object, a part with a file name an Upload.

    None where it is no such form.
    """
    boundary = email.message_from_string(f"Content-Type: {content_type}\n\n").get_boundary()
    if not boundary:
        return None
    # By hand, because the parser of email may change the ends of lines in a file.
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        return None
    fields = {}
    for part in parts[1:-1]:
        head, gap, content = part.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = email.message_from_string(head.decode(errors="replace") + "\r\n\r\n")
        name = headers.get_param("name", header="content-disposition")
        if not gap or not name:
            return None
        if (file := headers.get_filename()) is not None:
            value = Upload(file, headers.get("content-type", "application/octet-stream"), content)
        else:
            value = content.decode(errors="replace")
        _put(fields, name, value)
    return fields


def _put(fields, name, value):
    outer, inner = re.fullmatch(r"(.*?)(\[.*\])?", name, re.DOTALL).groups()
    if inner is None:
        fields[name] = value
    elif inner == "[]":
        fields.setdefault(outer, []).append(value)
    else:
        fields.setdefault(outer, {})[inner[1:-1]] = value
