"""Diffusion core: torch modules on top of diffusers, peft and transformers, independent of mmseg and mmagic."""
