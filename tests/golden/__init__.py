"""Recordings of every version of the journal that was ever released. Never changed, never remade.

A court may ask for a recording in thirty years: whatever reads journals then must read these.
"""
