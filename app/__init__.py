"""The composition root: everything is made, wired and closed here, and nowhere else.

main (create_app) · api (errors and headers) · routes (people, kiosks, health) · workflows (event →
what follows, durably) · cli (`reception …`) · doctor · seed (a believable prefecture)
"""
