"""The web process: Label Studio's protocol, the rounds, the pages for people, and metrics.

It never loads a neural network, so that it starts fast and runs on a small machine.
"""
