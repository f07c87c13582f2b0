"""`python -m app …` is `reception …`."""

from app.cli import main

main()
