"""Reads lines of JSON about cases: `lines` prints each as it comes, `table` a table of the clients."""

import json
import sys

if sys.argv[1] == "lines":
    for line in sys.stdin:
        case = json.loads(line)
        print(f"  {'FAILED' if case['problem'] else 'ok    '}  {case['case']}", flush=True)
        if case["problem"]:
            print(case["problem"], file=sys.stderr)
else:
    clients: dict[tuple[str, str], list[dict]] = {}
    for case in map(json.loads, sys.stdin):
        clients.setdefault((case["client"], case["version"]), []).append(case)
    print("\n| Client | Version | Cases | Result |\n| --- | --- | --- | --- |")
    for (client, version), cases in clients.items():
        bad = [case["case"] for case in cases if case["problem"]]
        print(f"| {client} | {version} | {'; '.join(case['case'] for case in cases)} | {'failed: ' + '; '.join(bad) if bad else 'all pass'} |")
