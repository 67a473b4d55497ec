"""Action of the option --cfg-options, which needs mmengine."""

import argparse
from typing import Any

from mmengine.config import DictAction


class OverrideAction(DictAction):
    """mmengine's action for options of the form KEY=VALUE, with an error message for other texts."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Adds the values to those of earlier options."""
        for text in values:
            key, equals, value = text.partition('=')
            if not (key and equals):
                raise argparse.ArgumentError(
                    self, f'{text!r} is not of the form KEY=VALUE, e.g. model.test_cfg.mode=whole'
                )
            try:
                self._parse_iterable(value)
            except (AssertionError, RecursionError):
                raise argparse.ArgumentError(self, f'{text!r} has brackets that are not balanced') from None
        super().__call__(parser, namespace, values, option)
