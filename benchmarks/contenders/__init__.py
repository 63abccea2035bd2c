"""All contenders, by name."""

from .contender import Contender, Launch, RunTarget
from .pipeline import ONE, ONE_NESTED, RECOVERY, TWO
from .redpanda_connect import REDPANDA_CONNECT, REDPANDA_CONNECT_NESTED
from .scripts import PLAIN, TUNED
from .vector import VECTOR, VECTOR_NESTED

CONTENDERS: dict[str, Contender] = {
    one.name: one
    for one in (
        *(PLAIN, TUNED, ONE, TWO, ONE_NESTED, RECOVERY),
        *(REDPANDA_CONNECT, REDPANDA_CONNECT_NESTED, VECTOR, VECTOR_NESTED),
    )
}

__all__ = [
    "CONTENDERS",
    "ONE",
    "PLAIN",
    "RECOVERY",
    "TUNED",
    "TWO",
    "Contender",
    "Launch",
    "RunTarget",
]
