"""Recurrent layers over a whole sequence: LSTM, GRU and the plain network."""
