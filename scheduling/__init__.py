"""Before the call: a day is published, a slot is booked, a party arrives and enters.

calendar · numbering · party · queue     pure rules
model · days · booking · views           tables, and what may happen to them
notice · admission · access              on the day: told, admitted, and by whom
slip                                     paper
schemas · routes · routes_attend         HTTP
"""
