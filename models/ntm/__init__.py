"""The neural topic model: mails as mixtures of topics, read by a net."""
