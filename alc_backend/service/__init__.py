"""The web service: Label Studio's ML protocol. Never loads a network."""
