"""The one matrix product: tiles, division among blocks, precision, bodies; dense layers."""
