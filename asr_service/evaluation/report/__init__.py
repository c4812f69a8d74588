"""The report of an evaluation, or of two side by side: one HTML file that needs no network."""

from asr_service.evaluation.report.page import write_report

__all__ = ["write_report"]
