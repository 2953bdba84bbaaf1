"""Any order of reservations, settlements and dead processes leaves exactly what an exact ledger says."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eccos_core.server.keys import KeyDatabase, KeyRules, Reservation
from eccos_core.server.keys.ledger import ALIVE_S

LIMITS = {"ana": 1_000, "bob": 500}
TENANT_LIMIT = 1_200
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from(("ana", "bob")), st.integers(0, 700), st.booleans()),
        st.tuples(st.just("settle"), st.integers(0, 30), st.integers(0, 900), st.booleans()),
        st.tuples(st.just("kill"), st.none(), st.none(), st.none()),
    ),
    max_size=40,
)


class ExactLedger:
    """The same rules in plain whole numbers: what each owner has spent, and each open reservation."""

    def __init__(self) -> None:
        self.spent = {"ana": 0, "bob": 0}
        self.open: dict[int, tuple[str, int]] = {}

    def held(self, owner: str | None = None) -> int:
        owners = [owner] if owner else list(self.spent)
        return sum(self.spent[each] for each in owners) + sum(n for o, n in self.open.values() if o in owners)

    def fits(self, owner: str, nano: int) -> bool:
        return self.held(owner) + nano <= LIMITS[owner] and self.held() + nano <= TENANT_LIMIT


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_the_database_agrees_with_an_exact_ledger(steps: list[tuple[str, object, object, object]]) -> None:
    now = [1_795_780_800.0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.sqlite"
        living, dying = (KeyDatabase(path, clock=lambda: now[0]) for _ in range(2))
        keys = {name: living.create(KeyRules(name, "team"))[0] for name in LIMITS}
        exact, made = ExactLedger(), dict[int, tuple[Reservation, KeyDatabase]]()
        closed: set[int] = set()
        living.beat()
        dying.beat()
        for number, (kind, first, second, by_dying) in enumerate(steps):
            if kind == "reserve":
                owner, nano, database = str(first), int(str(second)), dying if by_dying else living
                found = database.reserve(keys[owner], nano, {"key": LIMITS[owner], "tenant": TENANT_LIMIT})
                assert isinstance(found, Reservation) == exact.fits(owner, nano)
                if isinstance(found, Reservation):
                    made[number] = found, database
                    exact.open[number] = owner, nano
            elif kind == "settle" and exact.open:
                which = sorted(exact.open)[int(str(first)) % len(exact.open)]
                owner, nano = exact.open.pop(which)
                cost = int(str(second)) if by_dying else nano // 2
                held, database = made[which]
                assert database.settle(held, cost)
                assert not database.settle(held, cost)
                exact.spent[owner] += cost
            elif kind == "kill":
                now[0] += ALIVE_S + 1
                living_only = [which for which, (_, database) in made.items() if database is living]
                dead = {which for which in exact.open if which not in living_only} - closed
                assert living.beat() == len(dead)
                closed |= dead
                dying.beat()  # it was only asleep
            balances = {(each.scope, each.name): each for each in living.balances()}
            for name, key in keys.items():
                account = balances.get(("key", key.id))
                held_now = 0 if account is None else account.spent + account.reserved
                assert held_now == exact.held(name)
                # never more than the budget, but for calls that cost more than was reserved for them
                assert account is None or account.reserved >= 0
            team = balances.get(("tenant", "team"))
            assert (0 if team is None else team.spent + team.reserved) == exact.held()
        living.close()
        dying.close()
