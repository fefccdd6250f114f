"""`python -m selfheal` is `selfheal`: how the local runner starts the services with the interpreter it runs on."""

from selfheal.cli import main

if __name__ == "__main__":
    main()
