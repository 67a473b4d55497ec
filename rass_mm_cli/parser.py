"""Argument parser that suggests the most similar option or choice if one is misspelled."""

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean ...?' with the most similar word in `known`, or an empty string if none is similar."""
    found = get_close_matches(word, list(known), n=1)
    return f' Did you mean {found[0]}?' if found else ''


class CommandParser(argparse.ArgumentParser):
    """Argument parser whose error messages suggest the most similar option or choice."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage, the message and, if possible, a suggestion. Exits with status 2."""
        suggestion = self._suggestion(message)
        super().error(f'{message}.{suggestion}' if suggestion else message)

    def _suggestion(self, message: str) -> str:
        if message.startswith('unrecognized arguments:'):
            options = [word.split('=')[0] for word in message.split(': ', 1)[1].split() if word.startswith('--')]
            known = [name for action in self._actions for name in action.option_strings]
            return nearest(options[0], known) if options else ''
        choice = re.search(r"invalid choice: '?([^'\s]+)'? \(choose from (.*)\)", message)
        return nearest(choice[1], re.findall(r"[^\s,']+", choice[2])) if choice else ''
