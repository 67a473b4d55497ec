"""Small tokenizer: it is read by CLIP's class, known words are one token, and any text can be encoded."""

from transformers import CLIPTokenizer

from rass_mm.datasets.scenes import SCENE_CLASSES
from rass_mm.diffusion.tokenizer import train_merges, write_tokenizer


def test_the_vocabulary_is_always_the_same():
    assert train_merges() == train_merges()
    vocabulary, merges = train_merges()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert all(merge.replace(' ', '') in vocabulary for merge in merges)


def test_clip_reads_it_and_known_words_are_one_token(tmp_path):
    ids = write_tokenizer(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (ids['bos_token_id'], ids['eos_token_id'])
    for name in SCENE_CLASSES:
        assert len(tokenizer(name, add_special_tokens=False)['input_ids']) == 1, name
    text = 'A photo of Zebras, 123 naïve cafés'
    encoded = tokenizer(text, add_special_tokens=False)['input_ids']
    assert ids['eos_token_id'] not in encoded  # the end token is also the unknown token
    spelled = ''.join(tokenizer.convert_ids_to_tokens(encoded)).replace('</w>', ' ')
    assert spelled.startswith('a photo of zebras , 1 2 3 ')
