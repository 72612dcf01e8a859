"""Projects that are asked in CVAT: images and masks in, questions out, answers in, masks out.

What Label Studio's part does in ``annotations``, ``projects`` and the modules of tasks is done here
for CVAT; both stand behind :class:`alc_backend.loop.rounds.platforms.Platform`.
"""
