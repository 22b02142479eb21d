"""A run's verdicts as JUnit XML, which every CI system reads: a suite for the run, a case for each gate and target.

FAIL is a failure: the endpoint broke its limit. NO VERDICT and INVALID are errors: nothing was decided, and the text
says what would decide it. A case's class (target and load) and name (the gate) are the same in each run, so that a CI
system can follow it. Names come from strangers: the XML library escapes them, and what XML can't hold becomes U+FFFD.
"""

from __future__ import annotations

from xml.etree import ElementTree

from ..analysis.gates import Decision, Verdict
from ..analysis.judgement import Judgement
from . import findings
from .text import printable

KINDS = {Decision.FAIL: "failure", Decision.NO_VERDICT: "error", Decision.INVALID: "error"}


def junit(judgement: Judgement) -> bytes:
    """The whole file."""
    facts, verdicts = judgement.run.facts, judgement.everything
    kinds = [KINDS.get(verdict.decision) for verdict in verdicts]
    counts = {"tests": len(kinds), "failures": kinds.count("failure"), "errors": kinds.count("error"), "skipped": 0}
    numbers = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites", {"name": "phaseload", **numbers})
    about = {"name": printable(judgement.run.name), **numbers, "timestamp": printable(facts.created)}
    suite = ElementTree.SubElement(root, "testsuite", about)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(judgement).items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": printable(value)})
    for verdict in verdicts:
        _case(suite, verdict, judgement)
    ElementTree.indent(root)
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"


def _properties(judgement: Judgement) -> dict[str, str]:
    facts, validity = judgement.run.facts, judgement.validity
    reasons = {f"validity reason {number}": reason.text for number, reason in enumerate(validity.reasons, 1)}
    trace = {"trace": facts.trace.name, "trace fingerprint": facts.trace.fingerprint} if facts.trace else {}
    rounds = {f"rounds {number}": line for number, line in enumerate(findings.rounds(judgement.summary), 1)}
    baseline = {"baseline": judgement.baseline} if judgement.baseline else {}
    return {"validity": str(validity.status), **reasons, **rounds, **trace, **baseline, "phaseload": facts.version}


def _case(suite: ElementTree.Element, verdict: Verdict, judgement: Judgement) -> None:
    name = {"classname": printable(findings.where(verdict)), "name": printable(findings.gate(verdict))}
    case = ElementTree.SubElement(suite, "testcase", name)
    details = printable(findings.details(verdict))
    if kind := KINDS.get(verdict.decision):
        message = {"message": printable(findings.outcome(verdict)), "type": str(verdict.decision).upper()}
        element = ElementTree.SubElement(case, kind, message)
        element.text = "\n".join(
            [details, *(printable(findings.reason(why)) for why in judgement.why_invalid(verdict))]
        )
    else:
        ElementTree.SubElement(case, "system-out").text = details
