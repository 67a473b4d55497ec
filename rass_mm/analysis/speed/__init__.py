"""How fast a config runs, stage by stage, beside other configs and beside what the device could do."""
