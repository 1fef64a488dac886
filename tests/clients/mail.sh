#!/usr/bin/env bash
# Mails through a relay that is a real one: mail.sh. It starts a product of its own.
set -euo pipefail
. "$(dirname "$0")/../../scripts/env.sh"
PYTHONPATH="$root/tests/chaos" PYTHONDONTWRITEBYTECODE=1 exec "$root/tests/clients/mail.py"
