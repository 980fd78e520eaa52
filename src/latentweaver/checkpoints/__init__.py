"""Other people's weights and ours: reading them exactly, naming them, retrofitting them."""
