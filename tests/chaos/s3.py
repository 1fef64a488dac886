"""A real S3 for programs that break the product: versitygw, whose bucket is a folder that can be looked into."""

import socket
import subprocess
import time

from product import TOOLS, Wrong


class S3:
    """versitygw on `folder`/s3, until `close`."""

    # What versitygw keeps in a bucket for itself.
    OWN = ".sgwtmp"

    def __init__(self, folder):
        program = TOOLS / "versitygw"
        if not program.is_file():
            raise Wrong(f"{program} is not there; scripts/tools.sh parts makes it")
        self.bucket = folder / "s3" / "templates"
        self.bucket.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with (folder / "s3.log").open("wb") as log:
            self.process = subprocess.Popen(
                [program, "--port", f"127.0.0.1:{port}", "--access", "virtualstack", "--secret", "not-a-secret", "posix",
                 self.bucket.parent], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.settings = {
            "storage_kind": "s3", "storage_endpoint": f"http://127.0.0.1:{port}", "storage_bucket": self.bucket.name,
            "storage_access_key": "virtualstack", "storage_secret_key": "not-a-secret"}
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise Wrong(f"versitygw does not start; see {folder / 's3.log'}") from None
                time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.wait()
