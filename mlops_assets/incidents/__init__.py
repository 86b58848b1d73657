"""When the data turns: the gate, incidents and how people resolve them, alerts, and the lease of each model."""
