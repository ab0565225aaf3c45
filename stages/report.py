"""report: metrics compared with published values -> RESULTS.md, zoo.csv and report/index.html.

It also writes summary.json, the results of the active run for `dvc exp show`.
"""

from clipzoo.runtime.launch import run_stage
from clipzoo.config import load_params
from clipzoo.report.results import read_metrics
from clipzoo.report.site.pages import INDEX_FILE, write_site
from clipzoo.report.summary import SUMMARY_FILE, write_summary
from clipzoo.report.tables import RESULTS_FILE, ZOO_FILE, results_table, write_report


def main() -> None:
    params = load_params()
    print(f"report: {len(read_metrics())} recipes under metrics/ -> {RESULTS_FILE}, {ZOO_FILE}")
    report = write_report()
    rows = report.rows
    write_summary(rows, params.recipe)
    measured = [row for row in rows if row.value is not None]
    print(results_table([row for row in measured if row.recipe == params.recipe]), end="")
    print(
        f"wrote {RESULTS_FILE}, {ZOO_FILE} and {SUMMARY_FILE} ({len(measured)} results, "
        f"{len(rows) - len(measured)} published rows not run here)"
    )
    site = write_site(report)
    print(
        f"wrote {INDEX_FILE}: open it in a browser ({site.pages} runs, "
        f"{site.num_bytes / 1e6:.1f} MB); next: dvc metrics diff"
    )
    print(f"not on its pages: {len(site.missing)} things, each named on the page of its run")


if __name__ == "__main__":
    run_stage(main)
