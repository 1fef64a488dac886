"""The vCenter of a run: vcsim of tests/vcsim, and what is to be seen of it."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.sax.saxutils import escape

from product import TOOLS, Wrong

FOLDER = "/DC0/vm/virtualstack"
DATASTORE = "LocalDS_0"
TEMPLATES = [f"/DC0/vm/templates/{name}" for name in ("debian-12", "ubuntu-24.04", "windows-2022")]


def children(element, name):
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def descend(element, *names):
    for name in names:
        found = children(element, name) if element is not None else []
        element = found[0] if found else None
    return element


def text(element, *names):
    found = descend(element, *names)
    return None if found is None else found.text


class VSphere:
    """vcsim, with TLS and clones that take their time."""

    def __init__(self, folder, least, most, *more):
        program = Path(os.environ.get("VIRTUALSTACK_TEST_VCSIM", TOOLS / "vcsim"))
        if not program.is_file() or not (TOOLS / "govc").is_file():
            raise Wrong(f"vcsim or govc is not in {TOOLS}; run it by make, which builds them")
        self.folder = folder / "vcsim"
        self.folder.mkdir()
        ready = self.folder / "ready.json"
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            [program, "-stdin-guard", "-ready-file", ready, "-clone-delay-min", f"{least}s", "-clone-delay-max", f"{most}s",
             *more],
            stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, start_new_session=True)
        end = time.monotonic() + 30
        while not ready.exists():
            if time.monotonic() > end or self.process.poll() is not None:
                raise Wrong("vcsim does not start")
            time.sleep(0.05)
        self.ready = json.loads(ready.read_text())
        self.address = urllib.parse.urlsplit(self.ready["url"])
        self.tls = ssl.create_default_context(cafile=self.ready["ca_file"])
        self.cookie, self.templates, self.names = None, None, {}

    def settings(self):
        ready = self.ready
        return {"vcenter_url": ready["url"], "vcenter_username": ready["username"],
                "vcenter_password": ready["password"], "vcenter_ca_file": ready["ca_file"]}

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def _http(self, method, path, body=None, headers=None):
        connection = http.client.HTTPSConnection(
            self.address.hostname, self.address.port, context=self.tls, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        except TimeoutError:
            # Not the product: Go says what each of its goroutines waits for.
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(10)
            raise Wrong(f"the simulator hangs; {self.folder / 'log'} (with --keep) has its goroutines") from None
        finally:
            connection.close()

    def told(self, what):
        """What the simulator says of itself: calls, sessions."""
        return json.loads(self._http("GET", f"/test/{what}")[2])

    def file(self, path):
        """A file of the datastore, block by block."""
        if self.cookie is None:
            self._login()
        connection = http.client.HTTPSConnection(self.address.hostname, self.address.port, context=self.tls, timeout=60)
        try:
            where = urllib.parse.urlencode({"dcPath": "/DC0", "dsName": DATASTORE})
            connection.request("GET", f"/folder/{urllib.parse.quote(path)}?{where}", headers={"Cookie": self.cookie})
            reply = connection.getresponse()
            if reply.status != 200:
                raise Wrong(f"vcsim: {reply.status} for {path}")
            while block := reply.read(1 << 20):
                yield block
        finally:
            connection.close()

    def imported(self):
        """What there is of tenants' templates: machines that are templates, machines that are none yet, sizes of files."""
        def marked(machines):
            # A clone has the settings of its template, and its own.
            ours = [m["settings"] for m in machines if "virtualstack.vmId" not in m["settings"]]
            return [settings["virtualstack.templateId"] for settings in ours if "virtualstack.templateId" in settings]
        files = {path: size for path, size in self.told("files").items() if "/tenants/" in path}
        return marked(self.told("templates")), marked(self.told("vms")), files

    def _soap(self, call):
        envelope = (
            '<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
            f'<Body>{call.replace(" ", " xmlns=" + chr(34) + "urn:vim25" + chr(34) + " ", 1)}</Body></Envelope>')
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": "urn:vim25/8.0.0.0"}
        if self.cookie:
            headers["Cookie"] = self.cookie
        status, headers, reply = self._http("POST", self.address.path, envelope, headers)
        if status != 200:
            raise Wrong(f"vcsim: {status} {reply[:300]}")
        if "Set-Cookie" in headers:
            self.cookie = headers["Set-Cookie"].split(";")[0]
        return descend(ElementTree.fromstring(reply), "Body")[0]

    def _login(self):
        user, password = escape(self.ready["username"]), escape(self.ready["password"])
        self._soap(f'<Login ><_this type="SessionManager">SessionManager</_this>'
                   f"<userName>{user}</userName><password>{password}</password></Login>")

    def _read(self, kind, references, properties):
        """Properties of some objects, as elements."""
        if not references:
            return {}
        paths = "".join(f"<pathSet>{path}</pathSet>" for path in properties)
        objects = "".join(f'<objectSet><obj type="{kind}">{ref}</obj></objectSet>' for ref in references)
        reply = self._soap(
            '<RetrievePropertiesEx ><_this type="PropertyCollector">propertyCollector</_this>'
            f"<specSet><propSet><type>{kind}</type>{paths}</propSet>{objects}</specSet><options/></RetrievePropertiesEx>")
        found = {}
        for item in children(descend(reply, "returnval"), "objects"):
            found[text(item, "obj")] = {text(p, "name"): descend(p, "val") for p in children(item, "propSet")}
        return found

    def clone_tasks(self):
        """The last 200 clones of each template: reference → state, fault, name of the VM once there is one."""
        if self.cookie is None:
            self._login()
        if self.templates is None:
            self.templates = []
            for path in TEMPLATES:
                found = self._soap('<FindByInventoryPath ><_this type="SearchIndex">SearchIndex</_this>'
                                   f"<inventoryPath>{path}</inventoryPath></FindByInventoryPath>")
                self.templates.append(text(found, "returnval"))
        recent = self._read("VirtualMachine", self.templates, ["recentTask"])
        references = [task.text for found in recent.values() for task in found.get("recentTask", [])]
        found = [(ref, task["info"]) for ref, task in self._read("Task", references, ["info"]).items()]
        tasks, results = {}, set()
        # A slow clone of tests/vcsim has a second task inside, which began later, is never seen running, and has the
        # same result.
        for reference, info in sorted(found, key=lambda item: text(item[1], "queueTime")):
            result = text(info, "result")
            if "clone" not in text(info, "descriptionId").lower() or (result and result in results):
                continue
            results.add(result)
            fault = descend(info, "error", "fault")
            kind = None
            if fault is not None:
                kind = next(v for k, v in fault.attrib.items() if k.endswith("}type")).rpartition(":")[2]
            tasks[reference] = {"state": text(info, "state"), "fault": kind, "result": result}
        unknown = {t["result"] for t in tasks.values() if t["result"]} - self.names.keys()
        for reference, found in self._read("VirtualMachine", sorted(unknown), ["name"]).items():
            self.names[reference] = found["name"].text
        for task in tasks.values():
            task["name"] = self.names.get(task["result"])
        return tasks

    def govc(self, *arguments):
        ready = self.ready
        environment = os.environ | {
            "GOVC_URL": ready["url"], "GOVC_USERNAME": ready["username"], "GOVC_PASSWORD": ready["password"],
            "GOVC_TLS_CA_CERTS": ready["ca_file"], "GOVC_PERSIST_SESSION": "false", "HOME": str(self.folder)}
        done = subprocess.run([TOOLS / "govc", *arguments], env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Wrong(f"govc {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def machines(self):
        """The VMs in our folder, as govc sees them: name, instance UUID, marker, power."""
        paths = self.govc("find", FOLDER, "-type", "m").split()
        found = []
        for start in range(0, len(paths), 50):
            details = json.loads(self.govc("vm.info", "-json", *paths[start:start + 50]))
            for vm in details["virtualMachines"]:
                extra = {option["key"]: option.get("value") for option in vm["config"]["extraConfig"]}
                found.append({"name": vm["name"], "uuid": vm["config"]["instanceUuid"],
                              "marker": extra.get("virtualstack.vmId"), "power": vm["runtime"]["powerState"]})
        return found
