"""The contract of a decode head of RASS, as a base class of tests: a head needs only its name and its options."""

import torch

from rass_mm.labelling.bands import in_bands
from rass_mm.segmentation.rows import head_rows


class HeadContract:
    """Tests of one head on the small base.

    `name` is a model of the fixture `build`, and `options` are config values to change in it.
    """

    name = 'upernet'
    options: dict = {}

    def built(self, build):
        model = build(self.name, **self.options)
        for key, parameter in model.named_parameters():
            if 'lora_B' in key:
                torch.nn.init.normal_(parameter, std=0.02)  # at 0, the gradient of lora_A is 0 too
        return model

    def test_two_iterations_train_the_whole_head_and_nothing_frozen(self, build, batch):
        model = self.built(build).train()
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)
        for _ in range(2):
            loss, _ = model.parse_losses(model.loss(*batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert loss.isfinite() and loss > 0
        changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
        trained = {key for key, value in model.named_parameters() if value.requires_grad}
        assert changed <= trained and {key for key in trained if key.startswith('decode_head')} <= changed

    def test_bands_of_rows_are_the_logits_of_predict(self, build):
        model = self.built(build).eval()
        size, generator = (96, 160), torch.Generator().manual_seed(2)
        images = torch.randn(2, 3, *size, generator=generator)
        metas = [{'img_shape': size, 'pad_shape': size}] * 2
        with torch.no_grad():
            features = model.extract_feat(images)
            whole = model.decode_head.predict(features, metas, model.test_cfg)
            bands = list(in_bands(head_rows(model.decode_head, features, metas, size, model.test_cfg), size[0]))
        assert len(bands) > 1 and whole.shape == (2, 12, *size)
        torch.testing.assert_close(torch.cat(bands, 2), whole, rtol=1e-4, atol=1e-5)

    def test_an_image_has_the_same_logits_alone_and_in_a_batch(self, build, batch):
        model = self.built(build).eval()
        with torch.no_grad():
            both, alone = (model.encode_decode(images, [{}] * len(images)) for images in (batch[0], batch[0][:1]))
        torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)
