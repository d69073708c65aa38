"""Signed evidence: keys, and a ledger of attestations that outlives who runs the registry.

It may import `publishing` and what that stands on.
"""

__all__ = ["bom", "export", "keys", "ledger", "signing", "statements", "verify"]
