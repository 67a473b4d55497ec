"""Facts of a file or folder of this package: identity, kind, classes, base, data, licences and versions."""
