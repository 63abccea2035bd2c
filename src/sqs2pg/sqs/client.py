"""The SQS client of the hot path: seven calls of the AWS JSON protocol, which we sign and send.

Place in the flow: at both ends. The consumer receives messages, extends leases and deletes messages
through this client. botocore resolves the environment at start and renews credentials in a thread;
it never sends a request of the hot path.

Promises: an answer is never taken for another request's; every failure is one of our fault classes,
with a code from a bounded set; it retries what AWS's retry modes retry, except a send that could
put a message on the queue twice. Must never log or raise an answer's text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

from sqs2pg.errors import SettingsError, Sqs2pgError, TransientFault
from sqs2pg.message import Message
from sqs2pg.sqs import wire
from sqs2pg.sqs.chained_calls import CallChain, DeleteBatches, DeleteChain, ReceiveChain
from sqs2pg.sqs.connection import Reply
from sqs2pg.sqs.dialer import Dialer, make_tls
from sqs2pg.sqs.environment import AwsEnvironment, read_environment
from sqs2pg.sqs.errors import EXPIRED, MAYBE_SKEWED, locate, read_code, read_date, read_fault
from sqs2pg.sqs.pool import IDLE_S, SWEEP_S, ConnectionPool
from sqs2pg.sqs.queue_address import check_queue
from sqs2pg.sqs.retries import NOT_TAKEN, Retries
from sqs2pg.sqs.signer import USER_AGENT, AwsKeys, RepeatedRequest, RequestTemplate, Signer
from sqs2pg.sqs.wire import EntryFailure, Operation, OutgoingMessage, SendResult

CONNECTIONS_MAX = 64
"""For each of the two pools: one for long polls, one for everything else."""
SILENCE_S = 10.0
"""A call is given up after this many seconds without a byte, plus a long poll's own wait."""
SKEW_S_MIN = 60.0
"""AWS accepts a signature that is five minutes off, so it did not refuse a smaller difference."""
_SURE_IDLE_S = 2.0
"""A send cannot be repeated, so it uses a connection that was used just now, or a new one."""
_POLLS_MAX = 64
"""Different receive requests that are remembered; a pipeline has one or two."""

_Poll = tuple[str, int, int, int | None, tuple[str, ...]]


class SqsClient:
    """A client of one endpoint, used from one event loop.

    Long polls have a pool of connections of their own, so that they never delay a delete.
    Cancelling a call closes its connection. If a `receive` was cancelled or failed, SQS may have
    sent messages that never arrived; they come back when their visibility timeout ends.
    """

    def __init__(
        self,
        environment: AwsEnvironment,
        *,
        max_connections: int = CONNECTIONS_MAX,
        silence_s: float = SILENCE_S,
        sweep_s: float = SWEEP_S,
        retries: Retries | None = None,
    ) -> None:
        """`sweep_s` is the precision of `silence_s`. Without `retries` the environment's are used.

        Raises SettingsError if the CA bundle cannot be read.
        """
        self._environment = environment
        self._credentials = environment.credentials
        self._retries = retries or Retries(environment.retries)
        self._silence_s = silence_s
        self.skew_s = 0.0
        """By how much AWS's clock is ahead of this machine's, seconds. Read only."""
        self._requests = _SignedRequests(environment, self._credentials.keys)
        self._poll_bodies: dict[_Poll, bytes] = {}
        self._delete_answers = wire.DeleteAnswers()
        self._closed = False
        dialer = _make_dialer(environment)
        self.polls = ConnectionPool(dialer.dial, connections_max=max_connections, sweep_s=sweep_s)
        """The connections of receive calls."""
        self.calls = ConnectionPool(dialer.dial, connections_max=max_connections, sweep_s=sweep_s)
        """The connections of all other calls."""

    @classmethod
    def from_environment(
        cls,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        max_connections: int = CONNECTIONS_MAX,
        silence_s: float = SILENCE_S,
    ) -> Self:
        """Return a client for the AWS environment as boto3 would read it; see `read_environment`.

        Blocking: for seconds if credentials come from an instance or container role.
        """
        environment = read_environment(region=region, endpoint_url=endpoint_url)
        return cls(environment, max_connections=max_connections, silence_s=silence_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; calls in flight fail. May be repeated."""
        self._closed = True
        await asyncio.gather(self.polls.close(), self.calls.close(), self._credentials.close())

    @property
    def region(self) -> str:
        """The region requests are signed for."""
        return self._environment.region

    @property
    def endpoint_host(self) -> str:
        """The name or address of the endpoint, without the port."""
        return self._environment.endpoint.host

    def credential_expiry(self) -> float | None:
        """Return when the AWS credentials expire, seconds since the epoch; None means never."""
        return self._credentials.expiry

    async def queue_url(self, name_or_url_or_arn: str) -> str:
        """Return the URL of a queue. A URL is returned as it is; a name or an ARN is looked up.

        Raises SettingsError if it is malformed, or names another region, partition or host than
        the client's.
        """
        address = check_queue(name_or_url_or_arn, self._environment.endpoint, self.region)
        if not address.name:
            return name_or_url_or_arn
        return await self.look_up(address.name, address.account)

    async def look_up(self, name: str, account: str = "") -> str:
        """Return the URL of a queue by its name, in the client's region. `account`: "" for ours."""
        body = wire.write_body(QueueName=name, QueueOwnerAWSAccountId=account or None)
        return wire.read_queue_url(await self._call(wire.QUEUE_URL, body), wire.QUEUE_URL)

    async def create_queue(self, name: str, attributes: Mapping[str, str] | None = None) -> str:
        """Create a queue and return its URL; also if it exists with the same attributes."""
        body = wire.write_body(QueueName=name, Attributes=attributes or None)
        return wire.read_queue_url(await self._call(wire.CREATE_QUEUE, body), wire.CREATE_QUEUE)

    async def receive(
        self,
        queue_url: str,
        *,
        max_messages: int = wire.BATCH_MAX,
        wait_s: int = 20,
        visibility_timeout_s: int | None = None,
        message_attributes: Sequence[str] = (),
    ) -> list[Message]:
        """Receive up to `max_messages` (1 to 10), waiting up to `wait_s` (0 to 20) for the first.

        `visibility_timeout_s` (0 to 43,200) defaults to the queue's own. `message_attributes`
        names the producer's attributes to ask for, `All` for all of them. Raises TransientFault or
        FatalFault; ValueError outside the ranges.
        """
        body = self._poll_body(
            queue_url, max_messages, wait_s, visibility_timeout_s, tuple(message_attributes)
        )
        return wire.read_messages(await self._call(wire.RECEIVE, body, wait_s=wait_s))

    async def receive_while(
        self,
        take: Callable[[list[Message]], bool],
        queue_url: str,
        *,
        max_messages: int = wire.BATCH_MAX,
        wait_s: int = 20,
        visibility_timeout_s: int | None = None,
        message_attributes: Sequence[str] = (),
    ) -> list[Message]:
        """Receive again and again while `take` takes the messages; return the first it leaves.

        `take` is called from the event loop's callback with the messages of each reply that is not
        empty. If it returns True it has taken them, and the same request is sent again. It does not
        see large replies: they are returned. Raises as `receive`, for the last request; what was
        taken stays taken.
        """
        body = self._poll_body(
            queue_url, max_messages, wait_s, visibility_timeout_s, tuple(message_attributes)
        )
        chain = ReceiveChain(body, take)
        return wire.read_messages(await self._call(wire.RECEIVE, chain, wait_s=wait_s))

    def _poll_body(self, *key: *_Poll) -> bytes:
        body = self._poll_bodies.get(key)
        if body is None:
            body = wire.write_receive(*key)
            if len(self._poll_bodies) >= _POLLS_MAX:
                self._poll_bodies.clear()
            self._poll_bodies[key] = body
        return body

    async def delete(self, queue_url: str, receipt_handles: Sequence[str]) -> list[EntryFailure]:
        """Delete up to 10 messages; return the entries that failed. May be repeated."""
        body = wire.write_delete(queue_url, receipt_handles)
        answer = await self._call(wire.DELETE, body)
        return wire.read_failures(answer, len(receipt_handles), wire.DELETE)

    async def delete_batches(self, batches: DeleteBatches) -> list[EntryFailure]:
        """Delete batch after batch, until none is left or one has entries that failed.

        Returns the failed entries of the last batch, which is the present one of `batches`; a fault
        that is raised is its own. Every batch before it is deleted.
        """
        answer = await self._call(wire.DELETE, DeleteChain(batches, self._delete_answers))
        return wire.read_failures(answer, len(batches.handles), wire.DELETE)

    async def change_visibility(
        self, queue_url: str, receipt_handles: Sequence[str], timeout_s: int
    ) -> list[EntryFailure]:
        """Hide up to 10 messages for `timeout_s` (0 to 43,200) from now; return the failures.

        May be repeated. SQS keeps a message in flight for at most 12 hours in all.
        """
        body = wire.write_change_visibility(queue_url, receipt_handles, timeout_s)
        answer = await self._call(wire.CHANGE_VISIBILITY, body)
        return wire.read_failures(answer, len(receipt_handles), wire.CHANGE_VISIBILITY)

    async def send(
        self, queue_url: str, messages: Sequence[OutgoingMessage | str]
    ) -> list[EntryFailure]:
        """Send up to 10 messages, 1 MiB in all; a text is a message with that body.

        Returns the entries that failed. Retried only if AWS answered that it did not take them, or
        if deduplication ids make it safe. After a TransientFault the messages may or may not be on
        the queue.
        """
        return (await self.send_for_ids(queue_url, messages)).failures

    async def send_for_ids(
        self, queue_url: str, messages: Sequence[OutgoingMessage | str]
    ) -> SendResult:
        """As `send`; also return the MessageIds that SQS gave."""
        body = wire.write_send(queue_url, messages)
        repeatable = all(
            isinstance(message, OutgoingMessage) and message.deduplication_id
            for message in messages
        )
        answer = await self._call(wire.SEND, body, repeatable=repeatable)
        return wire.read_sent(answer, len(messages))

    async def attributes(self, queue_url: str, names: Sequence[str] = ("All",)) -> dict[str, str]:
        """Return the queue's attributes by name; every value is text."""
        body = wire.write_body(QueueUrl=queue_url, AttributeNames=names)
        return wire.read_attributes(await self._call(wire.ATTRIBUTES, body))

    async def _call(
        self,
        operation: Operation,
        request: bytes | CallChain,
        *,
        wait_s: float = 0.0,
        repeatable: bool = True,
    ) -> bytes:
        """Make one call with its retries, or a chain; return the body of the last answer.

        A call that is retried does not continue the chain: its answer is returned.
        """
        chain = None if isinstance(request, bytes) else request
        attempt, cost, corrected = 1, 0, False
        while True:
            keys, skew_s = self._credentials.keys, self.skew_s
            first = chain if attempt == 1 and not corrected else None
            body = request if isinstance(request, bytes) else request.body()
            try:
                reply = await self._attempt(operation, body, wait_s, repeatable, first)
                if reply.status == 200:
                    self._retries.succeed(cost)
                    return reply.body
                if not corrected and await self._correct(reply, keys, skew_s):
                    corrected = True  # one more attempt at once, which does not count
                    continue
                raise read_fault(reply, operation.name, operation.stage, body, self.endpoint_host)
            except Sqs2pgError as fault:
                if isinstance(fault, TransientFault):
                    fault.stage = operation.stage
                plan = self._retries.plan(fault, attempt)
                if plan is None or self._closed or not (repeatable or fault.code in NOT_TAKEN):
                    locate(fault, operation.name, self.endpoint_host)
                    raise
                delay_s, cost = plan
            attempt += 1
            await asyncio.sleep(delay_s)

    async def _attempt(
        self,
        operation: Operation,
        body: bytes,
        wait_s: float,
        repeatable: bool,
        chain: CallChain | None,
    ) -> Reply:
        """Return one answer, of any status. For a chain, return its last one."""
        if time.time() >= self._credentials.refresh_at:
            await self._credentials.renew()
        pool = self.polls if operation is wire.RECEIVE else self.calls
        silence_s = wait_s + self._silence_s
        idle_s = IDLE_S if repeatable else _SURE_IDLE_S
        next_request = None
        if chain is not None:
            next_request = partial(self._next_request, operation, chain, pool)
        connection = pool.acquire_idle(idle_s) or await pool.acquire(idle_s)
        try:
            return await connection.exchange(
                self._sign(operation, body, time.time()), silence_s, next_request
            )
        except TransientFault:
            # A server may close an idle connection just as a request goes out on it (RFC 9112,
            # section 9.3.1). That says nothing about the server: it does not count as an attempt.
            if not (repeatable and connection.went_stale):
                raise
        finally:
            pool.release(connection)
        connection = await pool.acquire(fresh=True)
        try:
            body = body if chain is None else chain.body()
            return await connection.exchange(self._sign(operation, body, time.time()), silence_s)
        finally:
            pool.release(connection)

    def _next_request(
        self, operation: Operation, chain: CallChain, pool: ConnectionPool, answer: bytes
    ) -> bytes | None:
        """Return the next request of a chain; None if something else must be done first."""
        now = time.time()
        if self._closed or pool.waiters or now >= self._credentials.refresh_at:
            return None
        body = chain.advance(answer)
        if body is None:
            return None
        self._retries.succeed(0)
        return self._sign(operation, body, now)

    def _sign(self, operation: Operation, body: bytes, now: float) -> bytes:
        """Return the request, signed with the present keys and dated by the corrected clock."""
        requests = self._requests
        if requests.keys is not self._credentials.keys:
            requests = self._requests = _SignedRequests(self._environment, self._credentials.keys)
        if operation is wire.RECEIVE:
            poll = requests.polls.get(body) or requests.add_poll(body)
            return poll.sign(now + self.skew_s)
        return requests.templates[operation].sign(body, now + self.skew_s)

    async def _correct(self, reply: Reply, keys: AwsKeys, skew_s: float) -> bool:
        """Return whether the cause of an error answer is now removed: old keys or a wrong clock.

        The request was sent with `keys` and `skew_s`; another call may have corrected them since.
        """
        code = read_code(reply)
        if code in EXPIRED:
            return await self._credentials.replace(keys)
        server_s = read_date(reply)
        if code not in MAYBE_SKEWED or server_s is None:
            return False
        now_s = time.time()
        if abs(server_s - (now_s + skew_s)) < SKEW_S_MIN:
            return self.skew_s != skew_s
        self.skew_s = server_s - now_s
        return True


class _SignedRequests:
    """The requests under one set of keys: one template per operation, and the repeated polls."""

    def __init__(self, environment: AwsEnvironment, keys: AwsKeys) -> None:
        self.keys = keys
        endpoint, proxy = environment.endpoint, environment.proxy
        signer = Signer(keys, region=environment.region, host=endpoint.host_header)
        unsigned = [("user-agent", USER_AGENT)]
        target = ""
        if proxy is not None and not endpoint.secure:  # no tunnel: the proxy reads the request
            target = f"http://{endpoint.host_header}{endpoint.path}"
            if proxy.authorization:
                unsigned.append(("proxy-authorization", proxy.authorization))
        self.templates = {
            operation: RequestTemplate(
                signer,
                path=endpoint.path,
                target=target,
                signed=(
                    ("content-type", wire.CONTENT_TYPE),
                    ("x-amz-target", f"AmazonSQS.{operation.name}"),
                ),
                unsigned=unsigned,
            )
            for operation in wire.OPERATIONS
        }
        self.polls: dict[bytes, RepeatedRequest] = {}
        """The receive requests so far, by their body."""

    def add_poll(self, body: bytes) -> RepeatedRequest:
        """Make the receive request with this body."""
        if len(self.polls) >= _POLLS_MAX:
            self.polls.clear()
        poll = self.polls[body] = RepeatedRequest(self.templates[wire.RECEIVE], body)
        return poll


def _make_dialer(environment: AwsEnvironment) -> Dialer:
    tls = None
    if environment.endpoint.secure:
        try:
            tls = make_tls(environment.ca_bundle)
        except OSError as error:
            raise SettingsError(
                f"the CA bundle cannot be read ({type(error).__name__})",
                hint="AWS_CA_BUNDLE, or ca_bundle in the AWS profile, must name a PEM file",
            ) from None
    return Dialer(environment.endpoint, tls=tls, proxy=environment.proxy)
