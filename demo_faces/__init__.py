"""Render faces from known factors: identity, action units, pose, light. Nothing here knows `fer_lib`."""
