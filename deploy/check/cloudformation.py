"""The Lambda and ECS templates: cfn-lint, and the rules of ours that it does not know."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.check.ours import ROOT, command_problems, open_secrets, settings_of
from deploy.check.report import Report

LAMBDA = ROOT / "deploy/lambda/template.yaml"
ECS = ROOT / "deploy/ecs/template.yaml"
VISIBILITY_FACTOR = 6
"""AWS Lambda developer guide, "Creating and configuring an Amazon SQS event source mapping"."""
FARGATE_STOP_S_MAX = 120


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: `!Ref X` as {"Ref": X}, and so on."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {suffix: value}


_Loader.add_multi_constructor("!", _short_form)


def check(report: Report) -> None:
    """Check both templates."""
    for file in (LAMBDA, ECS):
        report.check(f"cfn-lint: {file.relative_to(ROOT)}", lint(file))
    report.check("lambda: handler, visibility, partial responses, settings", lambda_problems())
    report.check("ecs: commands, settings, grace, secrets by reference", ecs_problems())
    for file in (LAMBDA, ECS):
        report.check(f"roles name what they may: {file.relative_to(ROOT)}", broad_grants(file))
    text = LAMBDA.read_text()
    report.refuses(
        "a visibility below six times",
        lambda: lambda_problems(text.replace("{Seconds: 180}", "{Seconds: 60}")),
    )
    report.refuses(
        "no partial batch responses",
        lambda: lambda_problems(text.replace("[ReportBatchItemFailures]", "[]")),
    )
    report.refuses(
        "a handler that is not ours",
        lambda: lambda_problems(text.replace("aws_lambda.handler", "aws_lambda.handle")),
    )
    broken = ROOT / "build/broken.yaml"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text(ECS.read_text().replace("DesiredCount:", "DesiredCounts:"))
    report.refuses("a misspelt property of a service", lambda: lint(broken))


def read(text: str) -> dict[str, Any]:
    """Return a template's tree."""
    tree: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506  a safe loader
    return tree


def lint(file: Path) -> Iterator[str]:
    """Yield cfn-lint's findings, warnings too."""
    tool = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run(  # noqa: S603  our own tool
        [tool, "--format", "parseable", str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        yield from (done.stdout + done.stderr).strip().splitlines()


def lambda_problems(text: str = "") -> Iterator[str]:
    """Yield what is wrong with the function's template."""
    tree = read(text or LAMBDA.read_text())
    function = tree["Resources"]["Sqs2pgFunction"]["Properties"]
    module, _, name = function["Handler"].rpartition(".")
    if not callable(getattr(importlib.import_module(module), name, None)):
        yield f"no handler {function['Handler']}"
    timeouts = tree["Parameters"]["TimeoutSeconds"]["AllowedValues"]
    for timeout in timeouts:
        visible = tree["Mappings"]["Visibility"][timeout]["Seconds"]
        if visible < VISIBILITY_FACTOR * int(timeout):
            yield f"visibility {visible} s is below six times the timeout of {timeout} s"
    source = function["Events"]["Queue"]["Properties"]
    if source["FunctionResponseTypes"] != ["ReportBatchItemFailures"]:
        yield "without ReportBatchItemFailures Lambda deletes the messages that are given back"
    environment = function["Environment"]["Variables"]
    yield from open_secrets({k: v for k, v in _plain(environment).items() if k != "DATABASE_URL"})
    settings = settings_of(_plain(environment))
    if isinstance(settings, str):
        yield settings
        return
    receives = tree["Resources"]["Queue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"]
    if not 0 < settings.source.max_receives < receives:
        yield "suspects must be tried alone before the queue gives them up"
    if settings.aws_lambda.margin_s >= min(map(int, timeouts)):
        yield "the margin leaves nothing of the shortest timeout"
    if settings.sink.statement_timeout_s * 2 > min(map(int, timeouts)):
        yield "a statement may take more than half of the shortest timeout"
    alarms = [r for r in tree["Resources"].values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    if len(alarms) < 4:
        yield "alarms are missing"


def ecs_problems() -> Iterator[str]:
    """Yield what is wrong with the service's template."""
    resources = read(ECS.read_text())["Resources"]
    for name in ("TaskDefinition", "MigrateTaskDefinition"):
        [container] = resources[name]["Properties"]["ContainerDefinitions"]
        yield from command_problems(container["Command"])
        environment = {one["Name"]: one["Value"] for one in container["Environment"]}
        yield from open_secrets(_plain(environment))
        settings = settings_of(_plain(environment))
        if isinstance(settings, str):
            yield settings
            continue
        granted = container.get("StopTimeout", FARGATE_STOP_S_MAX)
        if not settings.shutdown_grace_s < granted <= FARGATE_STOP_S_MAX:
            yield f"{granted} s are granted, and the pipeline takes {settings.shutdown_grace_s}"
        if not container["ReadonlyRootFilesystem"] or not container["Secrets"]:
            yield f"{name}: the root is writable, or a secret is no reference"


def broad_grants(file: Path) -> Iterator[str]:
    """Yield grants of a role that cover every action of a service, or every resource."""
    for name, resource in read(file.read_text())["Resources"].items():
        if resource["Type"] != "AWS::IAM::Role":
            continue
        for policy in resource["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                actions = statement["Action"]
                for action in [actions] if isinstance(actions, str) else actions:
                    if action.endswith("*"):
                        yield f"{name} may {action}"
                if statement["Resource"] == "*":
                    yield f"{name} may {actions} on everything"


def _plain(environment: dict[str, Any]) -> dict[str, str]:
    """Intrinsic functions as text: `${Parameter}` and the like replace a value."""
    return {
        name: value
        if isinstance(value, str)
        else re.sub(r"\$\{[^}]+\}", "x", str(next(iter(value.values()))))
        for name, value in environment.items()
    }
