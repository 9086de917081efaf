"""How the server meets the world. No adapter knows another."""
