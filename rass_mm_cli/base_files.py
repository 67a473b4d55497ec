"""Sizes and hashes of the files of the known bases, as public lists of these revisions give them.

For Stable Diffusion 2.1-base and 1.5 the hashes of the weights stand in several lists that agree. For the weights of
SD-Turbo no list was found. The files themselves were not available for comparison.
"""

MERGES = (524619, '76e821f1b6f0a9709293c3b6b51ed90980b3166b')
VOCABULARY = (1059962, '469be27c5c010538f845f518c4f5e8574c78f7c8')
BASE_FILES: dict[str, dict[str, tuple[int | None, str]]] = {
    'sd21-base': {
        'unet/config.json': (911, '0fa07f924dabbf7517dc62af845cd31573bc09e3'),
        'unet/diffusion_pytorch_model.safetensors': (
            3463726498,
            '6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214',
        ),
        'vae/config.json': (553, '9421ac5a7caf02657fa559cffe7c73a47572cd64'),
        'vae/diffusion_pytorch_model.safetensors': (
            334643276,
            'a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815',
        ),
        'text_encoder/config.json': (613, 'f9ac7c0b3b341525cd1b65e1a715128fee97b25c'),
        'text_encoder/model.safetensors': (
            1361597018,
            'cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c',
        ),
        'tokenizer/vocab.json': VOCABULARY,
        'tokenizer/merges.txt': MERGES,
        'tokenizer/tokenizer_config.json': (807, '65d055d1103982d6ba7cf1c5c876a9413077daf5'),
        'tokenizer/special_tokens_map.json': (460, 'ae0c5be6f35217e51c4c000fd325d8de0294e99c'),
        'scheduler/scheduler_config.json': (346, 'b68a817036d3f5c36537e9c332a42c7e63a9d4e9'),
    },
    'sd-turbo': {
        'unet/config.json': (None, 'ca09d494527ebe13343006e22b4468d45bf12aa34e76cf03639b6dbba1fb5c6d'),
        'vae/config.json': (None, '699a58ef7ecf3bffa201a507a3eaa3eed7efabab457ac547bf82df798b52a9be'),
        'text_encoder/config.json': (None, '9f6935d3d41bf8ce49b1d7ed912b29e770649d1aa3f3972215284f9397cd97d2'),
        'tokenizer/vocab.json': (None, 'e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349'),
        'tokenizer/merges.txt': (None, '9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a'),
        'tokenizer/tokenizer_config.json': (None, '516314ccab66918d7cb647480ac27abd3520d14e1e5825aac99f50c851c16071'),
        'tokenizer/special_tokens_map.json': (None, 'c2d0fb8b86ad86b1f46134d4a5f93fd1e688c932a78efc8d149087c33a53ad06'),
        'scheduler/scheduler_config.json': (None, '5599066c725fc2747a201fa3165ad7c8c3de3be629ce325451752e8f94c0d1ae'),
    },
    'sd15': {
        'unet/config.json': (743, '1a02ee8abc93e840ffbcb2d68b66ccbcb74b3ab3'),
        'unet/diffusion_pytorch_model.safetensors': (
            3438167540,
            '19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1',
        ),
        'vae/config.json': (547, '55d78924fee13e4220f24320127c5f16284e13b9'),
        'vae/diffusion_pytorch_model.safetensors': (
            334643276,
            'a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c',
        ),
        'text_encoder/config.json': (617, '4d3e873ab5086ad989f407abd50fdce66db8d657'),
        'text_encoder/model.safetensors': (
            492265874,
            'd008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334',
        ),
        'tokenizer/vocab.json': VOCABULARY,
        'tokenizer/merges.txt': MERGES,
        'tokenizer/tokenizer_config.json': (806, '5ba7bf706515bc60487ad0e1816b4929b82542d6'),
        'tokenizer/special_tokens_map.json': (472, '2c2130b544c0c5a72d5d00da071ba130a9800fb2'),
        'scheduler/scheduler_config.json': (308, '82d05b0e688d7ea94675678646c427907419346e'),
    },
}
"""Name of a base -> file -> size in bytes, or None, and hash: 64 digits are a SHA-256, 40 a Git identifier."""
