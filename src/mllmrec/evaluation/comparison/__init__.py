"""RUNs compared: pairs, seeds, intervals, corrected tests, tables."""
