"""Calls models through the batch APIs of their providers, and cancels what runs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eccos_core.backends.litellm.call_loop import CALL_LOOP
from eccos_core.backends.litellm.provider import provider_of
from eccos_core.backends.provider_batches.connections import BatchDeployment, Connections
from eccos_core.backends.provider_batches.rows import BATCH_PATHS
from eccos_core.backends.provider_batches.session import BatchSession, Report
from eccos_core.backends.provider_batches.state import ProviderBatch, ProviderBatchFolder
from eccos_core.domain import BatchOffer
from eccos_core.errors import InputError


class ProviderBatches:
    """Calls models through the batch APIs of their providers (implements `BatchProvider`).

    Records of open batches are kept in `folder`. A batch is looked at after `poll_s` seconds, and then ever more
    seldom, up to every `max_poll_s` seconds. Raises `InputError` for a provider whose batch API eccos does not speak.
    """

    def __init__(
        self,
        models: Sequence[BatchDeployment],
        folder: ProviderBatchFolder,
        *,
        poll_s: float = 15.0,
        max_poll_s: float = 300.0,
    ) -> None:
        for each in models:
            if (provider := provider_of(each.deployment)) not in BATCH_PATHS:
                known = " and ".join(BATCH_PATHS)
                raise InputError(
                    f"model {each.model.name!r} offers a batch API, and its provider is {provider!r}. eccos speaks "
                    f"those of {known}. Take `batch` out of its model_info."
                )
        self.folder = folder
        self._models = {each.model.name: each for each in models}
        self._poll_s, self._max_poll_s = poll_s, max(poll_s, max_poll_s)

    @property
    def offers(self) -> Mapping[str, BatchOffer]:
        """What the batch API of each model offers."""
        return {name: each.offer for name, each in self._models.items()}

    def open_session(
        self, models: Sequence[str], patience_s: float, report: Report | None = None, *, scope: str = ""
    ) -> BatchSession:
        """Return the batches of one call. Use it as a context manager. See `BatchProvider`."""
        chosen = {name: self._models[name] for name in models}
        times = {"poll_s": self._poll_s, "max_poll_s": self._max_poll_s}
        return BatchSession(self.folder, chosen, patience_s, report, scope, **times)

    def cancel(self, record_id: str) -> ProviderBatch:
        """Cancel a batch at its provider, by the id of its record or the provider's.

        A process that waits for it hears of it. If none waits, the batch is forgotten. Raises `InputError` for an
        unknown id and for a model that has no batch API any more, and `BackendError`.
        """
        record = next((r for r in self.folder.records() if record_id in (r.id, r.provider_id)), None)
        if record is None:
            raise InputError(f"there is no batch {record_id!r} in {self.folder.path}. `eccos batches` lists them.")
        if record.model not in self._models:
            raise InputError(
                f"batch {record_id!r} belongs to {record.model!r}, which has no `batch` in its model_info now. Put it "
                f"back to cancel the batch, or delete {record.id}.json in {self.folder.path}, and let it run."
            )
        self._cancel(record)
        return record

    def abandon(self, scope: str) -> None:
        """See `BatchProvider`."""
        for record in self.folder.records():
            if record.scope == scope and record.model in self._models:
                self._cancel(record)

    def _cancel(self, record: ProviderBatch) -> None:
        self.folder.ask_cancel(record.id)
        if record.provider_id:
            CALL_LOOP.run(self._cancel_at_provider(record))
        lock = self.folder.claim(record.id)
        if lock is not None:
            self.folder.remove(record.id)
            self.folder.release(record.id, lock)

    async def _cancel_at_provider(self, record: ProviderBatch) -> None:
        connections = Connections(self._models)
        try:
            await (await connections.get(record.model)).api.cancel(record.provider_id)
        finally:
            await connections.close()
