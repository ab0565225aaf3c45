"""report: every metrics file -> RESULTS.md and zoo.csv."""

from clipzoo.config import load_params
from clipzoo.launch import run_stage
from clipzoo.report import RESULTS_FILE, ZOO_FILE, read_metrics, results_table, write_report


def main() -> None:
    params = load_params()
    print(f"report: {len(read_metrics())} recipes under metrics/ -> {RESULTS_FILE}, {ZOO_FILE}")
    rows = write_report()
    print(results_table([row for row in rows if row.recipe == params.recipe]), end="")
    print(f"wrote {RESULTS_FILE} and {ZOO_FILE} ({len(rows)} results); next: dvc metrics diff")


if __name__ == "__main__":
    run_stage(main)
