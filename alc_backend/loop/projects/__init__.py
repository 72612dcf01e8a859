"""Projects: their connection with Label Studio, and how their images come into the store.

``connection`` makes the two projects of Label Studio or takes up existing ones; ``image_queue``
notes images that arrive there, and ``initial_labels`` gives them their first label maps.
"""
