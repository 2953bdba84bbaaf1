"""Virtual keys: who may call, how often, and for how much money a month."""

from eccos_core.server.keys.database import KeyDatabase
from eccos_core.server.keys.gate import KeyGate
from eccos_core.server.keys.key import KeyRules, VirtualKey
from eccos_core.server.keys.ledger import Balance, Reservation, Shortfall

__all__ = ["Balance", "KeyDatabase", "KeyGate", "KeyRules", "Reservation", "Shortfall", "VirtualKey"]
