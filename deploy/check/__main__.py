"""Run every check; exit 1 if one failed."""

from __future__ import annotations

import sys

from deploy.check import cloudformation, files, helm
from deploy.check.report import Report


def main() -> int:
    """Run all checks and print the result."""
    report = Report()
    helm.check(report)
    cloudformation.check(report)
    files.check(report)
    print(f"{report.checks - len(report.failed)} passed, {len(report.failed)} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
