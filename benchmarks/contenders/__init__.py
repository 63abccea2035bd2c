"""All contenders, by name."""

from .contender import Contender, Launch, RunTarget
from .pipeline import ONE, RECOVERY, TWO
from .redpanda_connect import REDPANDA_CONNECT
from .scripts import PLAIN, TUNED
from .vector import VECTOR

CONTENDERS: dict[str, Contender] = {
    one.name: one for one in (PLAIN, TUNED, ONE, TWO, RECOVERY, REDPANDA_CONNECT, VECTOR)
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
