"""The one matrix product, its tiles and bodies; dense layers."""
