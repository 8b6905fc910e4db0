"""What every test session says of itself first."""

import eraft


def pytest_report_header() -> str:
    return f"eraft {eraft.__version__}, implementation: {eraft.IMPL}"
