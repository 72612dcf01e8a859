"""The pages for people: projects with their rounds, and images before and after correction.

They are rendered on the server, can be read without a script, and load nothing from elsewhere.
"""
