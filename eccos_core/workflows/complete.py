"""Answer a file of requests in parts: each part is decided jointly, called, and written before the next one begins."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eccos_core.domain import Budget, Completion, Policy, Request
from eccos_core.errors import AttemptsExhausted, DataError, EccosError, InfeasibleError, InputError, Overloaded
from eccos_core.io.files import parse_object, read_json_lines
from eccos_core.io.optional import needs_extra, require_package
from eccos_core.router import Router
from eccos_core.workflows.large_plan.cut import ShardPlace, as_json_lines, cut, read_shard
from eccos_core.workflows.large_plan.store import shard_writer
from eccos_core.workflows.plan import parse_request

ANSWER_ROWS = 4_096  # requests of one part: as many answers are paid again after a kill, at most
# The columns of an answer. One that failed has only `id` and `error`.
_COLUMNS = ("id", "text", "model", "decided_model", "decision_id", "cost_usd", "input_tokens", "output_tokens", "error")

Progress = Callable[[str, int, int], None]  # (what is done, how much of it, of how much)
Answer = Mapping[str, Any]  # one line of the answers


@dataclass(frozen=True, slots=True)
class FileCompletion:
    """What became of a file.

    `answered_before` of its requests were answered by an earlier run. `asked_again` failed in one, and this run asked
    them again.
    """

    requests: int
    answered: int
    failed: int
    cost_usd: float
    answered_before: int
    asked_again: int


class FileAnswers:
    """The answers to a file of requests, in a folder with one file for each `part_rows` requests.

    A part is named by the content of its requests, so a second run finds those that are finished, and repeats no
    answer: of a finished part it asks only what failed, and nothing with `keep_failed`. Only one part is in memory.
    Each is assigned jointly under the router's policy, so a floor holds in every part. A budget is shared by the number
    of requests. `part_rows` None makes one part of the whole file. With `as_parquet` a part is Parquet, otherwise JSON
    Lines.
    """

    def __init__(
        self,
        requests: Path,
        folder: Path,
        *,
        part_rows: int | None = ANSWER_ROWS,
        as_parquet: bool = False,
        keep_failed: bool = False,
        progress: Progress = lambda stage, done, total: None,
    ) -> None:
        self.requests, self.folder, self.part_rows, self.progress = requests, folder, part_rows, progress
        self.keep_failed = keep_failed
        self._suffix = ".parquet" if as_parquet else ".jsonl"
        self.paths: tuple[Path, ...] = ()

    def run(
        self, router: Router, *, patience_s: float | None = None, report: Callable[[str], None] | None = None
    ) -> FileCompletion:
        """Answer all requests that have no answer yet. `patience_s` and `report` are those of `complete_batch`.

        Every line is read before the first call, so a bad one costs nothing. Raises `DataError` with the line,
        `InputError` where every call of a new part fails and there are several, and as `Router.complete_batch` does for
        what concerns all requests of a part. Finished parts are kept.
        """
        if self._suffix == ".parquet":
            require_package("pyarrow", "parquet", "writing answers as Parquet")
        plain = as_json_lines(self.requests, self.folder)
        places = cut(plain, self.part_rows or 2**62)
        self.paths = tuple(self._path(place) for place in places)
        total, done = sum(place.requests for place in places), 0
        for place in places:
            for _ in _requests_of(place, self.requests):
                pass
            done += place.requests
            self.progress("check", done, total)
        done, answered, failed, before, again, cost_usd = 0, 0, 0, 0, 0, 0.0
        self.progress("answer", done, total)
        for place, path in zip(places, self.paths, strict=True):
            earlier = _answers_of(path, place)
            open_rows = [row for row, answer in enumerate(earlier) if answer is None or self._asks_again(answer)]
            answers = [answer for answer in earlier if answer is not None]
            if open_rows:
                asked = _pick(_requests_of(place, self.requests), open_rows)
                policy = _policy_of(router.policy, place.requests / total, earlier)
                with _explain_retry(len(asked), path):
                    results = router.complete_batch(
                        asked, policy=policy, return_exceptions=True, patience_s=patience_s, report=report
                    )
                if len(places) > 1 and not path.exists():
                    _stop_where_nothing_answers(results, place)
                answers = _merge(earlier, open_rows, map(_answer, asked, results))
                _write(path, iter(answers))
            again += len(open_rows) - sum(answer is None for answer in earlier)
            before += sum(answer is not None and not _failed(answer) for answer in earlier)
            for answer in answers:
                answered += not _failed(answer)
                failed += _failed(answer)
                cost_usd += answer.get("cost_usd") or 0.0
            done += place.requests
            self.progress("answer", done, total)
        return FileCompletion(total, answered, failed, cost_usd, before, again)

    def _asks_again(self, answer: Answer) -> bool:
        return _failed(answer) and not self.keep_failed

    def join(self, file: Path) -> None:
        """Write all parts into one file, in order. Its name says whether it is Parquet.

        The folder is deleted, unless a later run would ask failed requests again: it needs the other answers.
        """
        _write(file, itertools.chain.from_iterable(map(read_answers, self.paths)))
        if not any(map(self._asks_again, read_answers(file))):
            shutil.rmtree(self.folder)

    def _path(self, place: ShardPlace) -> Path:
        return self.folder / f"part-{place.index:06d}-{place.start}-{place.digest[:16]}{self._suffix}"


def _requests_of(place: ShardPlace, source: Path) -> Iterator[Request]:
    for row, (line, raw) in enumerate(read_shard(place), start=place.start):
        entry = parse_object(raw, str(source), line)
        entry.setdefault("id", str(row))
        yield parse_request(entry, str(source), line)


def _failed(answer: Answer) -> bool:
    return answer.get("error") is not None


def _answers_of(path: Path, place: ShardPlace) -> list[Answer | None]:
    """Return what an earlier run wrote for each request of a part, None where it wrote nothing.

    Raises `DataError` where the file has answers of other requests.
    """
    if not path.exists():
        return [None] * place.requests
    answers: list[Answer | None] = list(read_answers(path))
    if len(answers) != place.requests:
        raise DataError(
            str(path),
            f"the part has {len(answers):,} answers for {place.requests:,} requests. Move the file away and run again, "
            "which asks all of them",
        )
    return answers


@contextmanager
def _explain_retry(requests: int, path: Path) -> Iterator[None]:
    """Name the way out where failed requests of a finished part cannot be asked again. Raises `InputError`."""
    try:
        yield
    except InfeasibleError as error:
        if not path.exists():
            raise
        raise InputError(
            f"{requests:,} requests of {path.name} failed in an earlier run, and cannot be asked again "
            f"under your policy: {error}. Change the policy, or add --keep-failed"
        ) from error


def _pick(requests: Iterator[Request], rows: Sequence[int]) -> list[Request]:
    """Return the requests in these rows, which rise."""
    wanted = set(rows)
    return [request for row, request in enumerate(requests) if row in wanted]


def _merge(earlier: Sequence[Answer | None], rows: Sequence[int], new: Iterator[Answer]) -> list[Answer]:
    """Return the earlier answers with the new ones in their rows."""
    merged = dict(enumerate(earlier)) | dict(zip(rows, new, strict=True))
    return [answer for answer in merged.values() if answer is not None]


def _policy_of(policy: Policy, share: float, earlier: Sequence[Answer | None]) -> Policy | None:
    """Return the policy of a part with this share of the requests, None where it is the usual one.

    A budget is what its share leaves after the earlier answers of the part.
    """
    paid = sum(answer.get("cost_usd") or 0.0 for answer in earlier if answer is not None)
    if not isinstance(policy, Budget) or (share == 1 and not paid):
        return None
    return replace(policy, usd=max(policy.usd * share - paid, 0.0))


def _stop_where_nothing_answers(results: Sequence[Completion | EccosError], place: ShardPlace) -> None:
    """Raise `InputError` where all calls of a part failed through no fault of the requests, as when a provider is down.

    Else the rest of a long file would fail too, and count as finished.
    """
    errors = [each for each in results if isinstance(each, AttemptsExhausted | Overloaded)]
    if len(errors) == len(results):
        raise InputError(
            f"all {len(results):,} requests from row {place.start:,} on failed, the first with: {errors[0]}. Nothing "
            "of this part is kept, and finished parts stay. Run the same command again when the models answer"
        ) from errors[0]


def _answer(request: Request, result: Completion | EccosError) -> Answer:
    if not isinstance(result, Completion):
        return {"id": request.id, "error": str(result)}
    return {
        "id": request.id,
        "text": result.text,
        "model": result.model,
        "decided_model": result.decision.model,
        "decision_id": result.decision.id,
        "cost_usd": result.cost_usd,
        "input_tokens": result.input_tokens,
        "output_tokens": result.output_tokens,
    }


def read_answers(path: Path) -> Iterator[Answer]:
    """Yield the answers of one file, JSON Lines or Parquet. Raises `DataError` for a damaged file."""
    if path.suffix != ".parquet":
        yield from (answer for _, answer in read_json_lines(path))
        return
    with needs_extra("parquet", "reading answers from Parquet"):
        import pyarrow.parquet as pq
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ANSWER_ROWS):
            for row in batch.to_pylist():
                yield {name: value for name, value in row.items() if value is not None}


def _write(path: Path, answers: Iterator[Answer]) -> None:
    """Write answers to a file that is there whole or not at all."""
    with shard_writer(path) as stream:
        if path.suffix != ".parquet":
            for answer in answers:
                stream.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            return
        with needs_extra("parquet", "writing answers as Parquet"):
            import pyarrow as pa
            import pyarrow.parquet as pq
        kinds = {"cost_usd": pa.float64(), "input_tokens": pa.int64(), "output_tokens": pa.int64()}
        schema = pa.schema([(name, kinds.get(name, pa.string())) for name in _COLUMNS])
        with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            while rows := list(itertools.islice(answers, ANSWER_ROWS)):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
