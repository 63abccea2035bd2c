"""The chart: lint it, render it with several sets of values, check each document."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import yaml

from deploy.check.ours import ROOT, command_problems, open_secrets, settings_of_files
from deploy.check.report import Report

CHART = ROOT / "deploy/helm/sqs2pg"
CASES = ROOT / "tests/deploy"
KUBERNETES = ("1.27", "1.30", "1.33", "1.36")
"""From the chart's kubeVersion to about the newest version that the schemas know."""
PROBE_MARGIN_S = 10

Document = dict[str, Any]


def check(report: Report) -> None:
    """Check the chart."""
    values = {file.stem: _load(file) for file in sorted((CASES / "values").glob("*.yaml"))}
    for name, one in values.items():
        for version in KUBERNETES:
            found = helm_python.lint(CHART, one, strict=True, kube_version=f"v{version}.0")
            messages = [str(m) for m in found.get("messages", []) if "icon is" not in str(m)]
            report.check(f"helm lint: values {name}, Kubernetes {version}", messages)
    rendered = {name: render(one) for name, one in values.items()}
    for name, documents in rendered.items():
        kinds = ", ".join(sorted({document["kind"] for document in documents}))
        for version in KUBERNETES:
            report.check(
                f"helm template: values {name}, Kubernetes {version}: {kinds}",
                (p for document in documents for p in schema_problems(document, version)),
            )
        report.check(
            f"helm template: values {name}: commands, settings, grace, secrets, references",
            our_problems(documents),
        )
    for file in sorted((CASES / "values/refused").glob("*.yaml")):
        report.check(f"the chart refuses {file.stem}", _not_refused(_load(file)))
    report.check("every value has a schema, and the schema's every value is there", _unknown())
    report.check("the chart's alerts are those of deploy/prometheus", _other_alerts())
    scaled = [d for d in rendered["pipelines-scaled"] if d["kind"] in ("ScaledObject", "ConfigMap")]
    broken = [*_broken(rendered["production"]), *_broken_scaling(scaled)]
    for what, documents in broken:
        report.refuses(
            what,
            lambda documents=documents: [
                *(p for one in documents for p in schema_problems(one, KUBERNETES[-1])),
                *our_problems(documents),
            ],
        )


def render(values: dict[str, Any]) -> list[Document]:
    """Return the documents that the chart makes from values."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="logins", namespace="etl")
    text = {name: one for name, one in files.items() if name.endswith(".yaml")}
    return [one for name in sorted(text) for one in yaml.safe_load_all(text[name]) if one]


def schema_problems(document: Document, version: str) -> Iterator[str]:
    """Yield where a document does not fit its kind's schema; unknown fields are refused."""
    name = f"{document['kind']} {document['metadata']['name']}"
    own = CASES / "schemas" / f"{document['kind']}.json"
    if own.is_file():
        validator = jsonschema.Draft7Validator(json.loads(own.read_text()))
        for error in validator.iter_errors(document):
            yield f"{name}: {error.json_path}: {error.message}"
        return
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{name}: {error}"
    except kubernetes_validate.SchemaNotFoundError as error:
        yield f"{name}: no schema ({error})"


def our_problems(documents: list[Document]) -> Iterator[str]:
    """Yield mistakes that the schemas cannot see."""
    configs = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    for document in documents:
        if document["kind"] not in ("Deployment", "Job"):
            continue
        pod = document["spec"]["template"]["spec"]
        if pod["serviceAccountName"] not in {*accounts, "shared"}:
            yield f"no service account {pod['serviceAccountName']}"
        yield from _mounts(pod)
        [container] = pod["containers"]
        environment = {e["name"]: e["value"] for e in container["env"] if "value" in e}
        yield from open_secrets(environment)
        yield from command_problems(container["args"])
        volumes = [v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v]
        files = [configs.get(name, {"sqs2pg.toml": "no such ConfigMap"}) for name in volumes]
        settings = settings_of_files(environment, files[0] if files else {})
        if isinstance(settings, str):
            yield settings
        elif document["kind"] == "Deployment":
            granted = pod["terminationGracePeriodSeconds"]
            if granted < settings.shutdown_grace_s + PROBE_MARGIN_S:
                yield f"{granted} s are granted, and the pipeline takes {settings.shutdown_grace_s}"
        security = container["securityContext"]
        if not security["readOnlyRootFilesystem"] or security["capabilities"]["drop"] != ["ALL"]:
            yield "the container may do more than it needs"
    yield from _selected(documents)
    yield from _scaled(documents)


def _mounts(pod: Document) -> Iterator[str]:
    there = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        for mount in container["volumeMounts"]:
            if mount["name"] not in there:
                yield f"{container['name']} mounts {mount['name']}, which is no volume"


def _selected(documents: list[Document]) -> Iterator[str]:
    """Whether each selector selects existing pods (or the Service)."""
    pods = [d["spec"]["template"] for d in documents if "template" in d.get("spec", {})]
    labels = [pod["metadata"]["labels"] for pod in pods]
    labels += [d["metadata"]["labels"] for d in documents if d["kind"] == "Service"]
    for document in documents:
        spec = document.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector") or {}
        wanted = selector.get("matchLabels", selector if document["kind"] == "Service" else {})
        if wanted and not any(wanted.items() <= one.items() for one in labels):
            yield f"{document['kind']} {document['metadata']['name']} selects nothing"
        target = spec.get("scaleTargetRef", {}).get("name")
        deployments = {d["metadata"]["name"] for d in documents if d["kind"] == "Deployment"}
        if target and target not in deployments:
            yield f"{document['kind']} scales {target}, which is no Deployment"


def _scaled(documents: list[Document]) -> Iterator[str]:
    """Whether KEDA follows, and asks about, each pipeline, and its formula has each trigger."""
    files = {file for d in documents if d["kind"] == "ConfigMap" for file in d["data"]}
    pipelines = {Path(file).stem for file in files - {"sqs2pg.toml"}}
    for document in documents:
        if document["kind"] != "ScaledObject":
            continue
        triggers = document["spec"]["triggers"]
        names = sorted(trigger["name"] for trigger in triggers)
        formula = document["spec"]["advanced"].get("scalingModifiers", {}).get("formula", names[0])
        if sorted(re.findall(r"[a-z]\w*", formula)) != names:
            yield f"the formula {formula} does not use each of {', '.join(names)} once"
        queues = {t["metadata"]["queueURL"] for t in triggers if t["type"] == "aws-sqs-queue"}
        if len(queues) != max(1, len(pipelines)):
            yield f"{len(pipelines)} pipelines, and KEDA follows {len(queues)} queues"
        queries = " ".join(t["metadata"].get("query", "") for t in triggers)
        asked = set(re.findall(r"p\.name = '([^']*)'", queries))
        if pipelines and queries.strip() and asked != pipelines:
            yield f"KEDA asks whether {', '.join(sorted(asked))} is paused"


def _not_refused(values: dict[str, Any]) -> Iterator[str]:
    try:
        with helm_python.Chart.load(CHART) as chart:
            chart.validate_schema(values)
            chart.render(values, name="logins", namespace="etl")
    except helm_python.HelmError:
        return
    yield "it was taken"


def _unknown() -> Iterator[str]:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    known = {*schema["properties"]} - {"global"}
    yield from (f"{name} has no schema" for name in sorted(values.keys() - known))
    yield from (f"{name} has no default" for name in sorted(known - values.keys()))


def _other_alerts() -> Iterator[str]:
    kept = ROOT / "deploy/prometheus/rules.yml"
    if kept.is_file() and kept.read_text() != (CHART / "files/rules.yml").read_text():
        yield "copy deploy/prometheus/rules.yml to the chart's files/rules.yml"


def _broken(documents: list[Document]) -> Iterator[tuple[str, list[Document]]]:
    """Yield the documents, each with one mistake made on purpose."""
    at = {document["kind"]: index for index, document in enumerate(documents)}

    def broken(kind: str, path: str, value: Any) -> list[Document]:
        changed = copy.deepcopy(documents)
        place: Any = changed[at[kind]]
        *way, last = [int(p) if p.isdigit() else p for p in path.split("/")]
        for step in way:
            place = place[step]
        place[last] = value
        return changed

    pod = "spec/template/spec"
    yield "a misspelt field of a Deployment", broken("Deployment", f"{pod}/restartpolicy", "Never")
    yield "a misspelt field of a ScaledObject", broken("ScaledObject", "spec/maxReplicas", 3)
    yield "a wrong type in a ServiceMonitor", broken("ServiceMonitor", "spec/endpoints", {})
    yield "an alert without expression", broken("PrometheusRule", "spec/groups/0/rules/0", {})
    yield "a command that is not ours", broken("Deployment", f"{pod}/containers/0/args", ["runs"])
    yield "a grace that is cut", broken("Deployment", f"{pod}/terminationGracePeriodSeconds", 30)
    secret = {"name": "PGPASSWORD", "value": "x"}
    yield "a secret in the open", broken("Deployment", f"{pod}/containers/0/env/0", secret)
    setting = {"name": "SQS2PG_SINK__TABEL", "value": "x"}
    yield "a setting that is not ours", broken("Deployment", f"{pod}/containers/0/env/0", setting)
    yield (
        "a budget for no pod",
        broken("PodDisruptionBudget", "spec/selector/matchLabels", {"app": "x"}),
    )


def _broken_scaling(documents: list[Document]) -> Iterator[tuple[str, list[Document]]]:
    for what, left_out in (
        ("a queue that KEDA does not follow", ("backlog_1", " + (paused_1 > 0 ? 0.0 : backlog_1)")),
        ("a pause that KEDA does not ask about", ("paused_0", "paused_0 > 0 ? 0.0 : ")),
    ):
        changed = copy.deepcopy(documents)
        [spec] = [one["spec"] for one in changed if one["kind"] == "ScaledObject"]
        trigger, term = left_out
        spec["triggers"] = [one for one in spec["triggers"] if one["name"] != trigger]
        yield f"{what}, and its formula wants", copy.deepcopy(changed)
        if trigger == "backlog_1":  # the pause of it goes, too
            spec["triggers"] = [one for one in spec["triggers"] if one["name"] != "paused_1"]
        modifiers = spec["advanced"]["scalingModifiers"]
        modifiers["formula"] = modifiers["formula"].replace(term, "")
        yield what, changed


def _load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded
