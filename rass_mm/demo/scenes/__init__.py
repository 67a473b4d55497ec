"""The painter of labelled scenes."""
