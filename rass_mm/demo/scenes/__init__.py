"""Generator of drawn, labelled outdoor scenes."""
