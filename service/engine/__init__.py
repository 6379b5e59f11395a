"""Tokenizer and runtime sessions for one bundle; knows no HTTP."""
