"""A small CLIP tokenizer in CLIP's own file format, for bases that are written here and not downloaded."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from rass_mm.atomic import write_text

START, END = '<|startoftext|>', '<|endoftext|>'
SUFFIX = '</w>'
WORDS = (
    'a photo of the , . sky grass road building tree car person pole water mountain sand snow rock fence wall wheel '
    'pavement sidewalk sign symbol pedestrian bicyclist bicycle bus truck boat bridge house plant field path '
    'window door'
)
"""Words that become one token each; every other word is spelled in smaller pieces, and any text can be encoded."""


def train_merges(words: str = WORDS) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of a byte-level BPE whose pieces are the given words; the same on every machine."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, end_of_word_suffix=SUFFIX, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([words] * 2, trainer)
    merges = [' '.join(merge) for merge in json.loads(tokenizer.to_str())['model']['merges']]
    pieces = [
        *alphabet,
        *(letter + SUFFIX for letter in alphabet),
        *(merge.replace(' ', '') for merge in merges),
        START,
        END,
    ]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}, merges


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Writes vocab.json, merges.txt and the two config files; returns what a text encoder's config must know of it."""
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
