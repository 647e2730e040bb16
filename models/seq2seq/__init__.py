"""Seq2Seq: from one sequence of tokens to another."""
