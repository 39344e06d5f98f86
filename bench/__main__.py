"""`python -m bench [name]`: every benchmark, or one, on a house of its own; one line of JSON each."""

from __future__ import annotations

import json
import os
import sys

from bench import api, churn, cluster_page, latency, month, packing, promise, queue, rest, slurm, start, week

BENCHMARKS = {
    "submit_to_first_line_ms": latency.submit_to_first_line,
    "log_line_to_page_ms": latency.log_line_to_page,
    "up_warm_s": start.up_warm,
    "resting_mb": rest.resting,
    "packing_default_percent": packing.packing_default,
    "mig_accepted_percent": churn.mig_accepted,
    "decisions_per_s": packing.decisions_per_s,
    "decisions_per_s_100k": packing.decisions_per_s_100k,
    "gang_ms": packing.gang,
    "admissions_per_s": queue.admissions,
    "deep_pass_ms": queue.deep_pass,
    "pass_ms": queue.full_pass,
    "reclaim_ms": queue.reclaim,
    "reclaim_commit_ms": queue.reclaim_commit,
    "wait_p50_s": week.wait_p50,
    "utilization_percent": week.utilization,
    "promise_held_percent": promise.held,
    "month_s": month.in_memory,
    "day_db_s": month.day_in_the_database,
    "rest_submits_per_s": api.rest_submits,
    "list_ms": api.lists,
    "logs_mb_per_s": api.logs,
    "cluster_page_ms": cluster_page.page,
    "cluster_page_10k_ms": cluster_page.page_10k,
    "cluster_frame_ms": cluster_page.frame,
    "cluster_draw_ms": cluster_page.draw,
    "slurm_submit_per_s": slurm.submits,
    "slurm_start_ms": slurm.starts,
    "slurm_observe_ms": slurm.observes,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"There is no benchmark {unknown[0]}. Choose of: {', '.join(BENCHMARKS)}")
    missed = 0
    for name in names or BENCHMARKS:
        figure = BENCHMARKS[name]()
        missed += not figure.met
        detail = {**figure.detail, "cores": os.cpu_count()}
        line = {"name": name, "value": figure.value, "unit": figure.unit, "target": figure.target}
        print(json.dumps({**line, "ok": figure.met, "detail": detail}), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main([name for name in sys.argv[1:] if name]))
