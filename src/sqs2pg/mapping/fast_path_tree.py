"""The fast path's tree: the paths of a mapping as nodes that C code follows through a document.

Each node is a member of an object or an element of an array. A node with a slot gives a value; an
exploded array is a group, whose elements have a tree and slots of their own. No I/O here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sqs2pg.mapping.conversions import json_kind
from sqs2pg.settings import Filter, Settings, Target, When, source_paths
from sqs2pg.settings.source_paths import EACH, SourcePath, Step

# As in native/plan.h.
_KINDS = {
    "number_text": 4,
    "boolean_text": 5,
    "scalar": 6,
    "string": 0,
    "number": 1,
    "boolean": 2,
    "any": 3,
    "array": 3,
}
_NODES_MAX, _CHILDREN_MAX, _SLOTS_MAX, _GROUPS_MAX = 512, 64, 128, 4

Steps = tuple[Step, ...]
NodeTuple = tuple[bytes, int, int, int, int, int, int, bool]
"""A node as the extension takes it: name, index, slot, kind, first child, children, group, free."""


class NotFastError(Exception):
    """The mapping has something that the C code cannot do."""


class _Node:
    def __init__(self, step: str | int = "") -> None:
        self.step = step
        self.children: dict[str | int, _Node] = {}
        self.slot = -1
        self.kind = "any"
        self.group = -1
        self.free = False

    def child(self, step: Step) -> _Node:
        if step is EACH or (isinstance(step, int) and step < 0):
            raise NotFastError
        if any(isinstance(other, int) != isinstance(step, int) for other in self.children):
            raise NotFastError  # no value is an object and an array
        return self.children.setdefault(step, _Node(step))


class _Scope:
    """The document, or an element of an exploded array: where paths start."""

    def __init__(self) -> None:
        self.root = _Node()
        self.slots = 0

    def node(self, steps: Sequence[Step]) -> _Node:
        node = self.root
        for step in steps:
            node = node.child(step)
        return node

    def slot(self, steps: Sequence[Step], kind: str) -> int:
        node = self.node(steps)
        if node.slot < 0:
            node.slot, node.kind = self.slots, kind
            self.slots += 1
        elif node.kind != kind:
            raise NotFastError
        return node.slot


class Tree:
    """Compiled from the targets; knows the slot of each source."""

    def __init__(
        self,
        targets: Sequence[Target],
        event: str = "",
        dropped: Sequence[str] = (),
        filters: Sequence[Filter] = (),
    ) -> None:
        """`event`: the path of an event's name; empty: none. `dropped`: paths that are counted.
        `filters`: what says which documents go to no table.

        Raises NotFastError where the C code cannot follow a path.
        """
        self._document = _Scope()
        self._groups: dict[Steps, _Scope] = {}
        self.groups_of = [self._group(target.explode) for target in targets]
        """For each target the group that it explodes, -1 for none."""
        self._slots = [self._read_sources(target) for target in targets]
        self.conditions = [self._condition(target.when) if target.when else 0 for target in targets]
        """For each target the slot of the field in its `when`, 0 without one."""
        self.deletes = [
            self._deletion(when) if (when := target.write.delete_when) and when.field else 0
            for target in targets
        ]
        """For each target the slot of the field in its `delete_when`, 0 without one."""
        self.filters = [self._condition(one.when) for one in filters]
        """For each filter the slot of the field in its `when`."""
        self.event = -1
        """The slot of the event's name, -1 without one."""
        if event:
            steps = source_paths.compile_sources([event])[event].steps
            self.event = self._document.slot(steps, "string")
        self.dropped = tuple(map(self._drop, dropped))
        """The slots of what goes to no column."""
        self._free(targets)
        self._check()

    @property
    def slots(self) -> int:
        """The number of values of a document, those of exploded arrays apart."""
        return self._document.slots

    @property
    def has_indexes(self) -> bool:
        """Whether a path goes through one element of an array."""
        return any(isinstance(node.step, int) for node in self._nodes())

    def slot(self, target: int, source: str) -> tuple[int, int]:
        """Return how many exploded arrays deep a source of a target is, and its slot."""
        return self._slots[target][source]

    def groups(self) -> tuple[tuple[int, int], ...]:
        """Return each group's root among the nodes, and its slots."""
        return tuple((1 + i, scope.slots) for i, scope in enumerate(self._groups.values()))

    def nodes(self) -> tuple[NodeTuple, ...]:
        """Return the nodes: the document's root, the groups' roots, then children after parents."""
        nodes = self._nodes()
        places = {id(node): place for place, node in enumerate(nodes)}
        return tuple(
            (
                node.step.encode() if isinstance(node.step, str) else b"",
                node.step if isinstance(node.step, int) else -1,
                node.slot,
                _KINDS[node.kind],
                places[id(_children(node)[0])] if node.children else 0,
                len(node.children),
                node.group,
                node.free,
            )
            for node in nodes
        )

    def paths(self) -> list[str]:
        """Return the path of each node, in the order of `nodes`; "" for the document."""
        paths = {id(self._document.root): ""}
        for whole, scope in self._groups.items():
            path = ""
            for step in whole:
                path = _below(path, step)
            paths[id(scope.root)] = path
        nodes = self._nodes()
        for node in nodes:
            for step, child in node.children.items():
                paths[id(child)] = _below(paths[id(node)], step)
        return [paths[id(node)] for node in nodes]

    def _nodes(self) -> list[_Node]:
        """Return all nodes; the children of one follow each other, elements by their index."""
        found: list[_Node] = []
        waiting = deque([self._document.root, *(scope.root for scope in self._groups.values())])
        while waiting:
            node = waiting.popleft()
            found.append(node)
            waiting.extend(_children(node))
        return found

    def _group(self, explode: str) -> int:
        if not explode:
            return -1
        *steps, _ = whole = source_paths.explode_steps(explode)
        array = self._document.node(steps)
        self._groups.setdefault(whole, _Scope())
        array.group = list(self._groups).index(whole)
        return array.group

    def _read_sources(self, target: Target) -> dict[str, tuple[int, int]]:
        pairs = [(source, field) for field in target.fields for source in field.body_sources]
        compiled = source_paths.compile_sources([source for source, _ in pairs], target.explode)
        return {
            source: self._slot(target, compiled[source], json_kind(field))
            for source, field in pairs
        }

    def _scope(self, target: Target, path: SourcePath) -> _Scope:
        return (
            self._groups[source_paths.explode_steps(target.explode)]
            if path.depth
            else self._document
        )

    def _slot(self, target: Target, path: SourcePath, kind: str) -> tuple[int, int]:
        return path.depth, self._scope(target, path).slot(path.steps, kind)

    def _condition(self, when: When) -> int:
        """Return the slot of a condition's field: that of a source, or one that takes any value."""
        steps = source_paths.compile_sources([when.field])[when.field].steps
        node = self._document.node(steps)
        return node.slot if node.slot >= 0 else self._document.slot(steps, "any")

    def _deletion(self, when: When) -> int:
        if source_paths.EACH in source_paths.parse(when.field):
            raise NotFastError  # in the element of the record, not in the document
        return self._condition(when)

    def _drop(self, source: str) -> int:
        steps = source_paths.parse(source)
        if not all(isinstance(step, str) for step in steps):
            raise NotFastError  # in any element of an array
        node = self._document.node(steps)
        self._free_below(node)
        if node.slot < 0:
            node.slot, self._document.slots = self._document.slots, self._document.slots + 1
        return node.slot

    def _free(self, targets: Sequence[Target]) -> None:
        """Mark what is below a path that takes whatever is there: all names there are known."""
        for target in targets:
            pairs = [(source, field) for field in target.fields for source in field.body_sources]
            compiled = source_paths.compile_sources([source for source, _ in pairs], target.explode)
            for source, field in pairs:
                if field.type == "jsonb" or source == "$":
                    path = compiled[source]
                    self._free_below(self._scope(target, path).node(path.steps))

    def _free_below(self, node: _Node) -> None:
        node.free = True
        below = list(node.children.values())
        if node.group >= 0:
            below.append(list(self._groups.values())[node.group].root)
        for child in below:
            self._free_below(child)

    def _check(self) -> None:
        nodes = self._nodes()
        sizes = [scope.slots for scope in (self._document, *self._groups.values())]
        if (
            len(nodes) > _NODES_MAX
            or len(self._groups) > _GROUPS_MAX
            or max(sizes) > _SLOTS_MAX
            or any(len(node.children) > _CHILDREN_MAX for node in nodes)
            or any(node.group >= 0 and node.children for node in nodes)
        ):
            raise NotFastError


def node_paths(settings: Settings) -> list[str]:
    """Return the path of each node of a mapping's fast path. Raises NotFastError."""
    event = settings.ledger.dedupe_key
    return Tree(settings.targets, event, settings.dropped, settings.filters).paths()


def _below(path: str, step: Step) -> str:
    if isinstance(step, str):
        return source_paths.member(path, step)
    return f"{path}[{'' if step is EACH else step}]"


def _children(node: _Node) -> list[_Node]:
    below = list(node.children.values())
    return sorted(below, key=lambda child: child.step) if isinstance(_first(below), int) else below


def _first(nodes: Sequence[_Node]) -> str | int:
    return nodes[0].step if nodes else ""
