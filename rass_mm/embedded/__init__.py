"""What makes a fresh machine useful without downloads: labelled scenes and a small trained base."""
