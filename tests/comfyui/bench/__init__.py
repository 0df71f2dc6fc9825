"""What the checks need: models of random weights, a running ComfyUI, a client for it, graphs, and a report."""
