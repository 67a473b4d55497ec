"""Saving and loading of models as packs, with the names and arguments of huggingface_hub's `PyTorchModelHubMixin`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from rass_mm.errors import ConfigError
from rass_mm.fetching.packs import find_pack
from rass_mm_cli.licences import NOT_STATED


class PretrainedMixin:
    """Mixin for loaded models that can be written as packs.

    Attributes:
        loader: function that loads a model of this class from the folder of a pack.
        saver: function that writes the pack of this model, or None if the model was not loaded from a file.
    """

    loader: ClassVar[Callable[..., Any]]
    saver: Callable[..., Path] | None = None

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        with_base: bool = False,
        metrics: str | os.PathLike | None = None,
        licence: str = NOT_STATED,
    ) -> Path:
        """Writes the model as a pack: one folder that can be moved and handed over.

        Args:
            save_directory: the folder. It must not exist.
            with_base: whether to copy the base into the pack. Otherwise, it is found by its name and its hash.
            metrics: `metrics.json` of a test of the model, for the model card.
            licence: licence of the model.

        Returns:
            The folder.

        Raises:
            ConfigError: the folder exists, the model was not loaded from a file, or it needs files or code that a pack
                cannot contain.
            RassError: the file of the model or of the metrics cannot be read.
        """
        if self.saver is None:
            raise ConfigError('The model was not loaded from a file. Load it with load_segmentor or load_restorer.')
        return self.saver(save_directory, with_base=with_base, metrics=metrics, licence=licence)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = True,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Loads a model from a pack.

        Args:
            pretrained_model_name_or_path: the folder of a pack, or the name of a repository of the Hugging Face hub.
            force_download: whether to download files again that are in the cache.
            token: token of the hub for a private repository, as in huggingface_hub.
            cache_dir: folder of downloaded packs; None uses `packs` in the cache folder of this package.
            local_files_only: whether to use no network. Unlike in huggingface_hub, this is the default.
            revision: branch, tag or commit of the repository; None uses `main`.
            model_kwargs: further arguments of `load_segmentor` or `load_restorer`, e.g. `device`.

        Raises:
            DownloadError: the pack is not on this machine, and the network is not allowed or does not answer.
            RassError: see `load_segmentor` and `load_restorer`.
        """
        settings = {'force_download': force_download, 'token': token, 'revision': revision}
        folder = find_pack(pretrained_model_name_or_path, cache_dir, local_files_only, **settings)
        return cls.loader(folder, **model_kwargs)
