"""Release: builds the packages, checks them, installs them into bare environments, and describes what they contain."""
