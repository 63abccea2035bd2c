"""The Lambda and ECS templates: cfn-lint, and the rules of ours that it does not know.

The ECS template is checked as it is for one pipeline and as it is for several.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.check.ours import ROOT, command_problems, open_secrets, settings_of, settings_of_files
from deploy.check.report import Report

LAMBDA = ROOT / "deploy/lambda/template.yaml"
ECS = ROOT / "deploy/ecs/template.yaml"
VISIBILITY_FACTOR = 6
"""AWS Lambda developer guide, "Creating and configuring an Amazon SQS event source mapping"."""
FARGATE_STOP_S_MAX = 120
TABLE = "{Name: SQS2PG_SINK__TABLE, Value: x}, {Name: SQS2PG_S"
NO_VALUE = {"Ref": "AWS::NoValue"}
QUEUE_ARNS = tuple(f"arn:aws:sqs:eu-central-1:123456789012:{name}" for name in ("logins", "orders"))
PIPELINES = {f"{arn.rpartition(':')[2]}.toml": f'[source]\nqueue = "{arn}"\n' for arn in QUEUE_ARNS}

Template = dict[str, Any]


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
    text = ECS.read_text()
    for what, old, new in (
        ("settings that are copied elsewhere", "Value: /etc/sqs2pg", "Value: /etc/other"),
        ("a task that does not wait for its settings", "DependsOn: !If", "Tags: !If"),
        ("a queue without an alarm", '"OldestMessage&{QueueArn}"', "OldestMessage"),
        ("a table for several pipelines", "!Ref AWS::NoValue, {Name: SQS2PG_S", TABLE),
    ):
        changed = text.replace(old, new)
        report.refuses(what, lambda changed=changed: ecs_problems(changed))


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


def ecs_problems(text: str = "") -> Iterator[str]:
    """Yield what is wrong with the service's template, for one pipeline and for several."""
    tree = read(text or ECS.read_text())
    for several in (False, True):
        resources = variant(tree, several=several)["Resources"]
        for name in ("TaskDefinition", "MigrateTaskDefinition"):
            properties = resources[name]["Properties"]
            *before, container = properties["ContainerDefinitions"]
            yield from (f"{name}: {problem}" for problem in _container_problems(container))
            yield from _settings_problems(container, several=several)
            if several:
                yield from _copied_problems(properties, before, container)
        yield from _queue_problems(resources, QUEUE_ARNS if several else QUEUE_ARNS[:1])


def _container_problems(container: Template) -> Iterator[str]:
    yield from command_problems(container["Command"])
    yield from open_secrets(_environment(container))
    if not container["ReadonlyRootFilesystem"] or not container["Secrets"]:
        yield "the root is writable, or a secret is no reference"


def _settings_problems(container: Template, *, several: bool) -> Iterator[str]:
    files = PIPELINES if several else {}
    settings = settings_of_files(_environment(container), files)
    if isinstance(settings, str):
        yield settings
        return
    granted = container.get("StopTimeout", FARGATE_STOP_S_MAX)
    if not settings.shutdown_grace_s < granted <= FARGATE_STOP_S_MAX:
        yield f"{granted} s are granted, and the pipeline takes {settings.shutdown_grace_s}"


def _copied_problems(
    properties: Template, before: list[Template], container: Template
) -> Iterator[str]:
    """Whether the settings files are there before ours starts, where it looks for them."""
    waits = {one["ContainerName"]: one["Condition"] for one in container.get("DependsOn", [])}
    if waits != {one["Name"]: "SUCCESS" for one in before} or len(before) != 1:
        yield f"{container['Name']} does not wait for its settings"
        return
    [copying] = before
    [mount] = copying["MountPoints"]
    folder = _environment(container).get("SQS2PG_CONFIG")
    if {folder, _environment(copying).get("SQS2PG_CONFIG")} != {mount["ContainerPath"]}:
        yield f"the settings are copied to {mount['ContainerPath']} and looked for in {folder}"
    if {**mount, "ReadOnly": True} not in container["MountPoints"]:
        yield f"{container['Name']} does not mount the settings to read"
    if mount["SourceVolume"] not in {one["Name"] for one in properties["Volumes"]}:
        yield "the settings' volume is not there"
    if copying["Essential"]:
        yield "the task ends with the container that copies the settings"
    if "TaskRoleArn" not in properties:
        yield "no role may read the settings"


def _queue_problems(resources: Template, arns: Sequence[str]) -> Iterator[str]:
    """Whether each queue has its scaling policy and its alarm."""
    for kind in ("ScalingPolicy", "Alarm"):
        texts = [json.dumps(r) for r in resources.values() if r["Type"].endswith(f"::{kind}")]
        for arn in arns:
            if not any(json.dumps(arn) in text for text in texts):
                yield f"queue {arn} has no {kind}"


def variant(tree: Template, *, several: bool) -> Template:
    """Return a template as CloudFormation makes it, for one pipeline or for several."""
    arns = QUEUE_ARNS if several else QUEUE_ARNS[:1]
    resources = {}
    for name, resource in tree["Resources"].items():
        if name.startswith("Fn::ForEach::"):
            identifier, _collection, body = resource
            for arn in arns:
                for key, one in body.items():
                    plain = re.sub(r"\W", "", arn)
                    resources[key.replace(f"&{{{identifier}}}", plain)] = _with(
                        one, identifier, arn
                    )
        elif several or resource.get("Condition") != "HasPipelines":
            resources[name] = resource
    made: Template = _chosen({**tree, "Resources": resources}, several=several)
    return made


def _with(node: Any, identifier: str, value: str) -> Any:
    """Put a value in the place of the identifier of Fn::ForEach."""
    if node == {"Ref": identifier}:
        return value
    if isinstance(node, dict):
        return {key: _with(one, identifier, value) for key, one in node.items()}
    if isinstance(node, list):
        return [_with(one, identifier, value) for one in node]
    return node.replace(f"${{{identifier}}}", value) if isinstance(node, str) else node


def _chosen(node: Any, *, several: bool) -> Any:
    """Decide each `!If [HasPipelines, …]`, and leave out what has no value."""
    if isinstance(node, dict):
        if list(node) == ["If"] and node["If"][0] == "HasPipelines":
            return _chosen(node["If"][1 if several else 2], several=several)
        found = {key: _chosen(one, several=several) for key, one in node.items()}
        return {key: one for key, one in found.items() if one != NO_VALUE}
    if isinstance(node, list):
        made = [_chosen(one, several=several) for one in node]
        return [one for one in made if one != NO_VALUE]
    return node


def _environment(container: Template) -> dict[str, str]:
    return _plain({one["Name"]: one["Value"] for one in container["Environment"]})


def broad_grants(file: Path) -> Iterator[str]:
    """Yield grants of a role that cover every action of a service, or every resource."""
    for name, resource in variant(read(file.read_text()), several=True)["Resources"].items():
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
