"""Run every benchmark of this folder, each in its own process: `python -m benchmarks --json`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run them; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these (default: all)")
    parser.add_argument("--json", action="store_true", help='print {"benchmarks": [...]}')
    parser.add_argument("--threads", type=int, help="of each side (default: all cores)")
    chosen = parser.parse_args()
    here = Path(__file__).parent
    known = sorted(each.stem for each in here.glob("[!_]*.py"))
    if unknown := [name for name in chosen.names if name not in known]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    options = ["--json"] if chosen.json else []
    if chosen.threads is not None:
        options += ["--threads", str(chosen.threads)]
    failed = 0
    found = []
    for name in chosen.names or known:
        print(f"running {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        done = subprocess.run(command, cwd=here.parent, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            failed = 1
            print(f"{name} failed with exit code {done.returncode}", file=sys.stderr)
        elif chosen.json:
            found.append(json.loads(done.stdout))
        else:
            print(f"{name}\n{done.stdout}", flush=True)
    if chosen.json:
        print(json.dumps({"benchmarks": found}, indent=2))
    return failed


if __name__ == "__main__":
    sys.exit(main())
