"""Boards that stand elsewhere already: Ansible inventories, ssh's configuration, tables, and what mDNS hears.

One file per source makes a `candidates.Reading`; `merging` (pure) says what of it would change in a fleet.
"""
