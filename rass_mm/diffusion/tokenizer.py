"""Small CLIP tokenizer in CLIP's file format, for bases that are created by this package instead of downloaded."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers import pre_tokenizers

from rass_mm.files.atomic import write_text

START, END = '<|startoftext|>', '<|endoftext|>'
SUFFIX = '</w>'
WORDS = (
    'a photo of the , . sky grass road building tree car person pole water mountain sand snow rock fence wall wheel '
    'pavement sidewalk sign symbol pedestrian bicyclist bicycle bus truck boat bridge house plant field path '
    'window door'
)
"""Words that become one token each. All other words are split into smaller pieces, so any text can be encoded."""


def train_merges() -> tuple[dict[str, int], list[str]]:
    """Computes the vocabulary and the merges of a byte-level BPE in which each of `WORDS` is one piece.

    The algorithm is byte-pair encoding as in Sennrich et al. 2016 (arXiv 1508.07909, algorithm 1). Ties are broken
    alphabetically, so the result is the same on every machine. The trainer of the tokenizers library is not used,
    because it breaks ties differently in every run.

    Returns:
        The vocabulary (piece -> id), and the merges in order, each as two pieces separated by a space.
    """
    spelled = [[*word[:-1], word[-1] + SUFFIX] for word in WORDS.split()]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for pieces in spelled for pair in pairwise(pieces)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_merged(pieces, best) for pieces in spelled]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [*alphabet, *(letter + SUFFIX for letter in alphabet)]
    pieces = [*letters, *(''.join(merge) for merge in merges), START, END]
    return {piece: index for index, piece in enumerate(pieces)}, [' '.join(merge) for merge in merges]


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Writes `vocab.json`, `merges.txt` and the two config files of the tokenizer to a folder.

    Returns:
        A dict with the values of `vocab_size`, `bos_token_id`, `eos_token_id` and `pad_token_id` for the config of the
        text encoder.
    """
    vocabulary, merges = train_merges()
    write_text(folder / 'vocab.json', json.dumps(vocabulary, ensure_ascii=False))
    write_text(folder / 'merges.txt', '\n'.join(['#version: 0.2', *merges]) + '\n')
    special = {'bos_token': START, 'eos_token': END, 'unk_token': END, 'pad_token': END}
    write_text(folder / 'special_tokens_map.json', json.dumps(special))
    write_text(
        folder / 'tokenizer_config.json',
        json.dumps({**special, 'tokenizer_class': 'CLIPTokenizer', 'model_max_length': 77}),
    )
    ids = {'bos_token_id': vocabulary[START], 'eos_token_id': vocabulary[END], 'pad_token_id': vocabulary[END]}
    return {'vocab_size': len(vocabulary), **ids}
