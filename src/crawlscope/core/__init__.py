"""The common base: settings, errors, logs, vocabulary, the data folder, HTTP clients."""
