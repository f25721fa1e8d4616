"""A node between an archive and the network: receives radiographs, predicts, sends results."""
