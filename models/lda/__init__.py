"""LDA: mails as mixtures of topics, topics as mixtures of words."""
