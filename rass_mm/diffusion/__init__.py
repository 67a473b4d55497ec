"""The diffusion core: plain torch modules over diffusers, peft and transformers; knows neither mmseg nor mmagic."""
