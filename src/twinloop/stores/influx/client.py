"""HTTP to InfluxDB 1.x, 2.x and 3.x, and to what takes their line protocol; which it is says `/ping`.

A failure that may pass is a `StoreBusy` with one sentence. What the server will never take is a `Refused`.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from twinloop.errors import ConfigError, QueryError, StoreBusy
from twinloop.stores.influx.answering import Series, Whole, decoder, lines
from twinloop.stores.influx.influxql import identifier
from twinloop.stores.influx.options import InfluxOptions

__all__ = ["Client", "Denied", "MissingError", "Refused", "Series", "Server"]

QUERY_TIMEOUT_S: Final = 60.0
PING_TIMEOUT_S: Final = 1.5
"""Of a server that did not answer this is asked first, so that a stop does not wait for one that hangs."""
_SHORT_QUERY: Final = 4_000
"""Characters of a question that stands in the URL; a longer one is a form."""
_CHUNK_ROWS: Final = 10_000
_LONGEST_TOLD: Final = 300
_LONGEST_WAIT_S: Final = 30.0
_WITHOUT_EMPTY_RESULTS: Final = 3
"""From this version on a statement without rows may have no result at all."""
_IN_VALUES: Final = r"\.values\[[^\]]*\]\["
"""In the decoder's words: it is what a row holds that is of another type."""
_LIMIT: Final = r"limit exceeded|max-series-per-database|max-values-per-tag"
_PASSING: Final = r"engine is closed|engine shutdown|query interrupted|max-concurrent-queries"
"""In the words of a statement that failed: it is not the statement."""
_FOR_GOOD: Final = (400, 413, 422)
_OF_POINTS: Final = r"partial write|pars|dropped|conflict|field|timestamp"


class Refused(Exception):  # noqa: N818 - caught here, never seen by a caller
    """A server did not take some points, and will not take them later either, but for `limited`.

    Args:
        words: the server's own.
        dropped: how many points it says it left out; -1 where it does not say.
        sure: whether the words are about points, and not about the request.
        limited: whether they are about a limit, which may be raised.
    """

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words
        said = re.search(r"dropped=(\d+)", words)
        self.dropped = int(said[1]) if said else -1
        self.limited = re.search(_LIMIT, words, re.IGNORECASE) is not None
        self.sure = re.search(_OF_POINTS, words, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Server:
    """What answered.

    Attributes:
        name: for messages.
        major: of its version; 0 for what is no InfluxDB.
        by_v2: whether points go to `/api/v2/write`.
    """

    name: str
    major: int
    by_v2: bool

    @property
    def answers(self) -> bool:
        """Whether it can be asked in InfluxQL."""
        return self.major > 0


class Client:
    """Talks to one server; safe to use from many threads.

    Args:
        options: where it is and how to log in.
        query_timeout_s: the longest silence of a server that is asked something; it may have much to read.

    Raises:
        ConfigError: the extra `influxdb` is not installed, or a certificate cannot be used.
    """

    def __init__(self, options: InfluxOptions, query_timeout_s: float = QUERY_TIMEOUT_S) -> None:
        try:
            import urllib3
        except ImportError:
            text = "store: type influxdb needs another package: pip install 'twinloop[influxdb]'"
            raise ConfigError(text) from None
        self._options = options
        self._base = options.url.rstrip("/")
        self._errors = urllib3.exceptions.HTTPError
        self._headers = _login(options)
        self._timeout = urllib3.Timeout(options.timeout_s, options.timeout_s)
        self._short = urllib3.Timeout(*[min(options.timeout_s, PING_TIMEOUT_S)] * 2)
        self._long = urllib3.Timeout(options.timeout_s, query_timeout_s)
        context = options.tls() if options.tls else None
        self._pool = urllib3.PoolManager(maxsize=4, retries=False, ssl_context=context)
        self._server: Server | None = None
        self._tried_to_create = False
        self._not_created = ""

    @property
    def where(self) -> str:
        """The server, for messages."""
        server = self._server
        return f"{server.name if server else 'InfluxDB'} at {self._base}"

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.clear()

    def server(self) -> Server:
        """What answers there, asked once as long as it does.

        Raises:
            StoreBusy: nobody answers, or the login does not fit what does.
        """
        server = self._server  # another thread may set it to None at any time
        if server is None:
            answer = self._request("GET", "/ping", timeout=self._short)
            if answer.status in {401, 403}:
                raise self._denied(_words(answer))
            if answer.status >= 300:
                raise self._busy(f"answered {answer.status} to /ping: {_words(answer)}")
            self._server = server = self._recognised(answer.headers.get("X-Influxdb-Version", ""))
        if server.major == 1 and self._options.token:
            raise self._busy("takes no token: give `username` and `password` in its place")
        return server

    def _recognised(self, version: str) -> Server:
        found = re.match(r"v?(\d+)\.", version)
        major = int(found[1]) if found else 0
        named = f"InfluxDB {version.removeprefix('v')}" if found else "the server"
        by_v2 = major != 1 and bool(self._options.token or self._options.org)
        return Server(named, major, by_v2)

    def look(self) -> str:
        """What answers there, once it has shown that it would take points; a missing database is made.

        Raises:
            StoreBusy: it would not, and why.
        """
        with suppress(Refused):  # of nothing at all: the login is good, and that is what was asked
            self.write(b"")
        return self.where

    def write(self, lines: bytes) -> None:
        """Have lines of line protocol stored, durable as far as the server is.

        Raises:
            Refused: it will not take some of them, however often it is asked; the others it may have taken.
            StoreBusy: it did not take them now.
        """
        answer = self._posted(lines)
        if answer.status == 404 and self._created():
            answer = self._posted(lines)
        if answer.status < 300:
            return
        words = _words(answer)
        if answer.status in _FOR_GOOD:
            raise Refused(words)
        if answer.status in {401, 403}:
            raise self._denied(words)
        if answer.status == 404:
            raise self._missing(words)
        busy = self._busy(f"does not take points now ({answer.status}: {words})")
        after = answer.headers.get("Retry-After", "")
        busy.retry_after_s = min(float(after), _LONGEST_WAIT_S) if after.isdecimal() else 0.0
        raise busy

    def _posted(self, lines: bytes) -> Any:
        options = self._options
        if self.server().by_v2:
            path, asked = "/api/v2/write", {"bucket": options.bucket, "precision": "ns"}
            asked |= {"org": options.org} if options.org else {}
        else:
            path, asked = "/write", {"db": options.bucket, "precision": "n"}
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"}
        return self._request("POST", path, asked, gzip.compress(lines, 1, mtime=0), headers)

    def _created(self) -> bool:
        """Whether a database that was not there was made; tried once, and only where there are databases."""
        if self.server().major != 1 or self._tried_to_create:
            return False
        self._tried_to_create = True
        try:
            self.ask([f"CREATE DATABASE {identifier(self._options.bucket)}"], list[str])
        except (StoreBusy, QueryError) as error:
            self._not_created = str(error).removeprefix(self.where).strip()
            return False
        return True

    def _missing(self, words: str) -> StoreBusy:
        name = identifier(self._options.bucket)
        server = self._server
        if server is not None and server.major == 1:
            why = f" and did not make it ({self._not_created})" if self._not_created else ""
            return self._busy(f"has no database {name}{why}: have an administrator CREATE DATABASE {name}")
        return self._busy(f"has no bucket {name}, or not for this login: {words}")

    def _denied(self, words: str) -> Denied:
        options = self._options
        if options.token:
            what = f"refused the token ({words}): see `token`, `org` and its permissions"
        elif options.username:
            what = f"refused user {options.username} ({words}): see `username`, `password` and its grants"
        else:
            what = "lets nobody in without a login: give `token`, or `username` and `password`"
        return Denied(f"{self.where} {what}", retry_after_s=0.0)

    def ask(self, statements: Sequence[str], row: Any, bucket: str = "") -> list[list[Series[Any]]]:
        """What InfluxQL statements give, each its series; as `pieces`."""
        found: list[list[Series[Any]]] = [[] for _ in statements]
        for at, series in self.pieces(statements, row, bucket):
            found[at].append(series)
        return found

    def pieces(
        self, statements: Sequence[str], row: Any, bucket: str = ""
    ) -> Iterator[tuple[int, Series[Any]]]:
        """The series that InfluxQL statements give, by the statement's place, each some rows at a time.

        Answers come as JSON: as CSV, a server leaves out that a statement failed.

        Args:
            statements: what is asked.
            row: the type of rows, a tuple that begins with the time.
            bucket: where; by default where the samples are.

        Raises:
            QueryError: the server cannot do what a statement asks.
            StoreBusy: it does not answer now, or not to the end.
        """
        if not self.server().answers:
            raise QueryError(f"{self.where} answers no InfluxQL: ask it by its own means")
        asked = {"db": bucket or self._options.bucket, "epoch": "ns"}
        asked |= {"chunked": "true", "chunk_size": str(_CHUNK_ROWS)}
        text = ";".join(statements)
        body, headers = b"", {"Content-Type": "application/x-www-form-urlencoded"}
        if len(text) <= _SHORT_QUERY:
            asked["q"] = text  # every version reads it there
        else:
            body = urlencode({"q": text}).encode()
        answer = self._request("POST", "/query", asked, body, headers, timeout=self._long, streamed=True)
        try:
            self._expect(answer)
            yield from self._gathered(answer, row, len(statements))
        except self._errors as error:
            raise self._unreached(error) from error
        except msgspec.ValidationError as error:
            if not re.search(_IN_VALUES, str(error)):
                raise self._busy(f"gave an answer that is none of InfluxDB's: {error}") from error
            raise QueryError(f"{self.where} has values of another kind there: {error}") from error
        except msgspec.MsgspecError as error:
            raise self._busy(f"gave an answer that cannot be read: {error}") from error
        finally:
            answer.close()  # what was read to its end has given its connection back already

    def _gathered(self, answer: Any, row: Any, statements: int) -> Iterator[tuple[int, Series[Any]]]:
        whole, any_line = Whole(statements), False
        for line in lines(answer):
            any_line = True
            answered = decoder(row).decode(line)
            for result in answered.results or ():
                if result.error:
                    raise self._unanswered(result.error)
            if answered.error:
                raise self._unanswered(answered.error)
            if not whole.take(answered):
                raise self._busy("gave an answer that is none of InfluxDB's")
            for result in answered.results or ():
                yield from ((result.statement_id, series) for series in result.series)
        if not (whole or self._says_nothing(answer, any_line=any_line, statements=statements)):
            raise self._busy("broke its answer off")

    def _says_nothing(self, answer: Any, *, any_line: bool, statements: int) -> bool:
        """Whether this is how InfluxDB 3.x answers that there are no rows."""
        server, kind = self._server, answer.headers.get("Content-Type", "")
        of_3 = server is not None and server.major >= _WITHOUT_EMPTY_RESULTS
        return of_3 and statements == 1 and not any_line and kind.startswith("application/json")

    def _expect(self, answer: Any) -> None:
        """Return when a question is answered."""
        if answer.status == 200:
            return
        words = _words(answer)
        if answer.status in {401, 403}:
            raise self._denied(words)
        if answer.status < 400 or answer.status == 429 or answer.status >= 500:
            raise self._busy(f"does not answer now ({answer.status}: {words})")
        raise self._unanswered(words)

    def _unanswered(self, words: str) -> QueryError | StoreBusy:
        if re.search(_PASSING, words, re.IGNORECASE):
            return self._busy(f"does not answer now ({words})")
        missing = re.search(
            r"(database|bucket|retention policy|dbrp)\b.*not found|not found.*dbrp", words, re.IGNORECASE
        )
        if missing is None:
            return QueryError(f"{self.where} does not answer: {words}")
        text = f"{self.where} has no {identifier(self._options.bucket)} to ask ({words})"
        server = self._server
        if server is not None and server.major == 2:
            text += "; InfluxQL needs a mapping of the bucket: see `influx v1 dbrp create`"
        return MissingError(text)

    def _request(
        self,
        method: str,
        path: str,
        asked: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: Any = None,
        streamed: bool = False,
    ) -> Any:
        url = f"{self._base}{path}" + (f"?{urlencode(asked)}" if asked else "")
        try:
            return self._pool.request(
                method,
                url,
                body=body,
                headers={**self._headers, **(headers or {})},
                timeout=timeout or self._timeout,
                retries=False,
                redirect=False,
                preload_content=not streamed,
            )
        except self._errors as error:
            raise self._unreached(error) from error

    def _unreached(self, error: Exception) -> StoreBusy:
        self._server = None  # another one may answer next time
        return self._busy(f"cannot be reached: {_why(error)}")

    def _busy(self, what: str) -> StoreBusy:
        return StoreBusy(f"{self.where} {what}", retry_after_s=0.0)  # the store knows how often that was


class Denied(StoreBusy):
    """The login does not fit, or may not do this."""


class MissingError(QueryError):
    """There is no such database or bucket to ask."""


def _login(options: InfluxOptions) -> dict[str, str]:
    if options.token:
        return {"Authorization": f"Token {options.token}"}
    if options.username:
        pair = f"{options.username}:{options.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def _words(answer: Any) -> str:
    """What a server says about what went wrong, in one line."""
    text = answer.data.decode("utf-8", "replace")
    try:
        said = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        said = text
    if isinstance(said, dict):
        said = said.get("error") or said.get("message") or text
    words = " ".join(str(said).split()) or answer.reason or "no words"
    # The end has the count of points dropped.
    return words if len(words) <= _LONGEST_TOLD else f"{words[: _LONGEST_TOLD - 60]} ... {words[-50:]}"


def _why(error: BaseException) -> str:
    """The innermost cause of a failure, without addresses of objects."""
    inner = error.__cause__ or error.__context__
    cause = inner if isinstance(inner, OSError) else error
    text = getattr(cause, "strerror", None) or str(cause)
    return re.sub(r"<[^>]*>: ?|HTTPS?Connection\([^)]*\): ?", "", str(text)).strip().rstrip(".")
